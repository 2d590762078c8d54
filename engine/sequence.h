#pragma once

#include <cstdint>
#include <vector>

#include "common/ids.h"
#include "kernels/sample.h"
#include "kv/block.h"
#include "kv/slot_pool.h"

namespace spillway {

// One request inside an Engine. tokens = prompt, then generated; the last generated token has no K and V yet.
struct Sequence {
  enum class State : uint8_t {
    kIdle,        // holds its slots; nothing begun
    kPrefilling,  // more than one row to compute: a prompt, or after a preemption all of `tokens`
    kDecoding,
    kPreempted,  // its slots were taken: waits to compute all of `tokens` again
    kFailed,     // logits were not finite: waits to be closed
    kClosing,    // closed while a step names it
  };
  State state = State::kIdle;
  std::vector<TokenId> tokens;
  uint32_t prompt_tokens = 0;
  uint32_t reserve_tokens = 0;   // the length at which it stops; `blocks` grow up to it
  uint32_t cached_tokens = 0;    // found in the prefix cache when opened; a multiple of block_tokens
  uint32_t computed_tokens = 0;  // positions whose K and V lie in the slots
  uint32_t computed_most = 0;    // the most there ever were: to compute below is work done twice
  uint32_t sealed_blocks = 0;    // handed to KvCache::publish so far, the cached ones included
  std::vector<SlotPin> blocks;   // from position 0
  std::vector<BlockKey> keys;    // of full blocks of `tokens`, as far as known
  BlockEncoding encoding;        // of blocks published from now on
  SamplingParams sampling;
  std::vector<TokenId> stop_tokens;  // withheld from the first sampling.min_tokens output tokens
  TenantKey tenant;
  bool digest_logits = false;
  uint32_t logprob_count = 0;  // entries of each token
  bool score_prompt = false;
  uint64_t arrival = 0;  // order of open()

  bool runs() const {  // takes part in steps
    return state == State::kPrefilling || (state == State::kDecoding && computed_tokens < reserve_tokens);
  }
  uint32_t rows_left() const { return static_cast<uint32_t>(tokens.size()) - computed_tokens; }
  // Rows whose prompt tokens were scored before a preemption share no step with those that were not, which it plans
  // after them: so each is scored once.
  bool scored_before() const { return score_prompt && computed_tokens < computed_most; }
  uint32_t rows_for_step() const { return scored_before() ? computed_most - computed_tokens : rows_left(); }
};

}  // namespace spillway
