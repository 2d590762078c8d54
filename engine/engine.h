#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "engine/compute_job.h"
#include "engine/sequence.h"
#include "kv/block_key.h"
#include "kv/kv_cache.h"
#include "scheduler/batching.h"

namespace spillway {

struct EngineConfig {
  BatchLimits limits;            // sequences_max also bounds the open sequences; tokens_max >= sequences_max
  uint32_t max_model_len = 0;    // prompt + output tokens of one sequence
  bool announce_layers = false;  // a prefill node sends layer by layer
  uint32_t vocab = std::numeric_limits<uint32_t>::max();  // prompts with ids from here on are refused
  // Slots for so many tokens of output are held from the start, those for more are taken block by block.
  uint32_t growth_margin = std::numeric_limits<uint32_t>::max();
};

struct EngineCounters {  // since start
  uint64_t preemptions = 0;
  uint64_t recomputed_tokens = 0;  // positions computed again after them
};

// What one sampled token means for its sequence.
struct EngineToken {
  SequenceId sequence{};
  uint32_t index = 0;  // 0: the first generated token
  TokenId token = 0;
  uint64_t logits_digest = 0;
  bool finite =
      true;  // false: logits were not finite; the sequence takes no further part and must be failed and closed
  std::vector<TokenLogprob> logprobs{};
};

// Blocks [block_first, block_first + block_count) of a sequence whose rows a step completes.
struct CompletedBlocks {
  SequenceId sequence{};
  uint32_t block_first = 0, block_count = 0;  // indices into Sequence::blocks; count > 0
  bool operator==(const CompletedBlocks&) const = default;
};

// Loop-side core of a one-process server: sequences, their slots, prefix reuse, continuous batching with chunked
// prefill. It decides and never computes: the same calls give the same plans. Loop thread. One step in flight (the next
// decode step needs the tokens of the last). A SequenceId is REQUIRED to be open, that is from open() until close();
// its row is not given out again before the step that named it is done, so an answer never meets a stranger.
class Engine {
 public:
  // Throws SetupError when the limits cannot work. `cache` must outlive the engine.
  Engine(const EngineConfig& config, KvCache& cache);

  struct OpenRequest {
    std::vector<TokenId> prompt;
    // The most positions it will ever hold slots for. REQUIRES >= prompt.size(). Once K and V of so many tokens lie in
    // the slots the sequence is not planned any more. The token sampled last needs no slot, so it generates at most
    // reserve_tokens - prompt.size() + 1 tokens: prompt.size() is all that a prefill needs, prompt + max_tokens - 1 all
    // that max_tokens of output need.
    uint32_t reserve_tokens = 0;
    uint32_t reuse_tokens_max = 0;  // a prefix hit covers at most this many (a prefill must compute its last token)
    SamplingParams sampling;
    std::vector<TokenId> stop_tokens{};  // not sampled among the first sampling.min_tokens; to stop is the caller's
    TenantKey tenant;
    PublicPrefix public_prefix{};  // of the prompt; REQUIRES tokens <= prompt.size(). Output is never public
    bool digest_logits = false;
    uint32_t logprob_count = 0;  // of each sampled token, entries as in common/logprobs.h
    bool score_prompt = false;   // the same of every prompt token but the first, once; REQUIRES reuse_tokens_max == 0
  };
  // Matches the prefix and takes slots for the rest and growth_margin. kNoSpace: no slots or sequence rows now, or a
  // preempted sequence waits for slots; kTooLong: reserve_tokens over max_model_len or over what the pool could ever
  // hold; kInvalidArgument: empty prompt or a token outside the vocabulary.
  Result<SequenceId> open(OpenRequest request);

  // Queues the prompt's uncached rows, then decodes until closed or out of reserve. Its last prompt row samples token
  // 0. REQUIRES kIdle, cached_tokens < prompt_tokens.
  void begin_prefill(SequenceId sequence);
  // The prompt's KV lies in the slots and `first_token` was sampled elsewhere; decodes from there. `landed` is the
  // encoding of the blocks that came from outside: the prompt's full blocks are published with it, and where it is not
  // the cache's own, all later blocks of the sequence are of class kNumericsMixed. REQUIRES kIdle, first_token < vocab.
  void begin_decode(SequenceId sequence, TokenId first_token, const BlockEncoding& landed);
  // Takes no further part in steps. Slots return when no step in flight names them; sealed blocks stay as cache.
  void close(SequenceId sequence);

  // The next step, or nothing: no work, no slots, or a step is in flight. Shares: decodes, then prompts, each in order
  // of open(). A share's block table ends with the block of its last row. Steps are numbered from 1. Before it the
  // sequences grow (engine/growth.cc): where slots lack, the youngest that runs loses all its own and computes prompt
  // and output again later. The oldest is in every step.
  std::optional<StepPlan> plan();
  const StepPlan* step_in_flight() const { return in_flight_ ? &*in_flight_ : nullptr; }
  // REQUIRES: `done` answers the step in flight, with one SampledToken per sampling share in their order.
  // Appends one EngineToken per sampled sequence that is still open, seals and publishes the blocks that became full
  // (none of a sequence whose logits were not finite, whose earlier ones leave the cache too). No step runs twice: its
  // blocks may be read from their LayerDone on, and writing row 0 of a block zeroes it first.
  void on(const StepDone& done, std::vector<EngineToken>& tokens);
  // Blocks of open sequences that are complete after `plan` and were not before, in the order of its shares. A prompt's
  // partial tail counts once its last token is computed (and again when decoding fills it). For the step in flight.
  std::vector<CompletedBlocks> completed_by(const StepPlan& plan) const;

  const Sequence& sequence(SequenceId sequence) const;
  uint32_t open_sequences() const { return open_; }                                     // closing ones excluded
  uint32_t sequences_free() const { return static_cast<uint32_t>(free_rows_.size()); }  // closing ones excluded
  // Of prefills begun and of preempted sequences: rows not computed yet, those in flight included.
  uint32_t queued_prompt_tokens() const;
  uint32_t preempted() const;  // open sequences that wait for slots
  const EngineCounters& counters() const { return counters_; }
  KvCache& cache() { return cache_; }
  const EngineConfig& config() const { return config_; }
  // Every owner pin of the cache belongs to one row and counts add up (CHECK). REQUIRES: nobody else holds kOwner pins.
  void check_conservation() const;

 private:
  struct Row {
    bool used = false;
    Sequence sequence;
  };
  Result<void> admit(const OpenRequest& request) const;
  uint32_t blocks_ahead(size_t tokens, uint32_t reserve_tokens) const;
  std::vector<SequenceId> by_age() const;
  void make_room();
  bool preempt_youngest(std::span<const SequenceId> ages, SequenceId for_whom);
  bool resume(Sequence& sequence);
  void check_oldest_moves(const std::vector<BatchRow>& batch) const;
  uint32_t used_row(SequenceId sequence) const;  // its index in rows_ (CHECK)
  uint32_t open_row(SequenceId sequence) const;  // the same; REQUIRES not closing (CHECK)
  void append_share(StepPlan& plan, const BatchRow& row) const;
  void advance(const StepShare& share, const SampledToken* sampled, bool scores_finite,
               std::vector<EngineToken>& tokens);
  void publish_full_blocks(Sequence& sequence, const BlockEncoding& encoding);
  void free_row(SequenceId sequence);

  EngineConfig config_;
  KvCache& cache_;
  std::vector<Row> rows_;              // by SequenceId
  std::vector<SequenceId> free_rows_;  // the one freed last comes first
  std::optional<StepPlan> in_flight_;
  EngineCounters counters_;
  uint64_t steps_ = 0, arrivals_ = 0;
  uint32_t open_ = 0;
};

}  // namespace spillway
