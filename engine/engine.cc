#include "engine/engine.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

constexpr uint32_t kModelLenMax = 1u << 30;  // so that token and block arithmetic stays inside 32 bits

// Of the token that follows the share's rows.
void add_sample(StepPlan& plan, StepShare& share, const Sequence& sequence) {
  const uint32_t position = share.position_first + share.token_count;
  SampleRow& sample = share.sample;
  sample.params = sequence.sampling;
  sample.position = position;
  sample.prompt_tokens = sequence.prompt_tokens;
  sample.digest = sequence.digest_logits;
  sample.logprob_count = sequence.logprob_count;
  if (position - sequence.prompt_tokens < sequence.sampling.min_tokens) {
    for (const TokenId token : sequence.stop_tokens) {
      sample.params.logit_bias.push_back({token, -std::numeric_limits<float>::infinity()});
    }
  }
  if (!sample.params.looks_back()) return;
  share.history_first = checked_cast<uint32_t>(plan.history.size());
  plan.history.insert(plan.history.end(), sequence.tokens.begin(), sequence.tokens.begin() + position);
}

// The prompt tokens that follow the share's rows.
void add_scores(StepShare& share, const Sequence& sequence) {
  const uint32_t end = std::min(share.position_first + share.token_count, sequence.prompt_tokens - 1);
  if (end <= share.position_first) return;
  share.score_count = end - share.position_first;
  share.logprob_count = sequence.logprob_count;
  share.after = sequence.tokens[end];
}

}  // namespace

Engine::Engine(const EngineConfig& config, KvCache& cache) : config_(config), cache_(cache) {
  const BatchLimits& limits = config.limits;
  if (limits.sequences_max == 0 || limits.chunk_tokens == 0 || config.max_model_len == 0) {
    throw SetupError(fmt::format("engine limits must be at least 1: sequences {}, chunk tokens {}, model length {}",
                                 limits.sequences_max, limits.chunk_tokens, config.max_model_len));
  }
  if (limits.tokens_max < limits.sequences_max) {
    throw SetupError(
        fmt::format("a step of {} tokens cannot advance {} sequences; allow more tokens or fewer sequences",
                    limits.tokens_max, limits.sequences_max));
  }
  if (config.max_model_len > kModelLenMax) {
    throw SetupError(
        fmt::format("a model length of {} tokens is over the supported {}", config.max_model_len, kModelLenMax));
  }
  rows_.resize(limits.sequences_max);
  for (uint32_t row = limits.sequences_max; row > 0; --row) free_rows_.push_back(SequenceId{row - 1});
}

Result<void> Engine::admit(const OpenRequest& request) const {
  if (request.prompt.empty()) return fail(ErrorCode::kInvalidArgument, "the prompt has no tokens");
  const auto outside = std::ranges::find_if(request.prompt, [&](TokenId token) { return token >= config_.vocab; });
  if (outside != request.prompt.end()) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("the prompt token at position {} is outside the vocabulary of {}",
                            outside - request.prompt.begin(), config_.vocab));
  }
  if (request.reserve_tokens > config_.max_model_len) {
    return fail(ErrorCode::kTooLong, fmt::format("{} tokens of prompt and output exceed the model length of {}",
                                                 request.reserve_tokens, config_.max_model_len));
  }
  CHECK(request.reserve_tokens >= request.prompt.size());
  CHECK(!request.score_prompt || (request.reuse_tokens_max == 0 && request.logprob_count > 0));
  const uint32_t blocks = cache_.config().layout.blocks_for(request.reserve_tokens);
  if (blocks > cache_.config().slot_count) {
    return fail(ErrorCode::kTooLong, fmt::format("{} tokens need {} KV blocks and the pool has {}; give it more memory",
                                                 request.reserve_tokens, blocks, cache_.config().slot_count));
  }
  if (free_rows_.empty()) {
    return fail(ErrorCode::kNoSpace, fmt::format("all {} sequences are in use", rows_.size()));
  }
  if (const uint32_t waiting = preempted(); waiting > 0) {
    return fail(ErrorCode::kNoSpace, fmt::format("{} preempted sequences wait for KV blocks first", waiting));
  }
  return {};
}

Result<SequenceId> Engine::open(OpenRequest request) {
  if (auto admitted = admit(request); !admitted) return tl::unexpected(std::move(admitted.error()));
  const KvCacheConfig& kv = cache_.config();
  const uint32_t block_tokens = kv.layout.block_tokens;

  Sequence sequence;
  sequence.keys = block_keys(request.tenant, request.public_prefix, kv.model, block_tokens, request.prompt);
  const size_t reusable = std::min<size_t>(sequence.keys.size(), request.reuse_tokens_max / block_tokens);
  sequence.blocks = cache_.match(std::span(sequence.keys).first(reusable), request.prompt);
  sequence.sealed_blocks = static_cast<uint32_t>(sequence.blocks.size());
  const uint32_t lacking = blocks_ahead(request.prompt.size(), request.reserve_tokens) - sequence.sealed_blocks;
  if (!cache_.reserve(lacking, sequence.blocks)) {
    return fail(ErrorCode::kNoSpace,
                fmt::format("{} KV blocks are needed and {} are available now", lacking, cache_.available()));
  }
  sequence.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  sequence.reserve_tokens = request.reserve_tokens;
  sequence.cached_tokens = sequence.computed_tokens = sequence.sealed_blocks * block_tokens;
  sequence.tokens = std::move(request.prompt);
  sequence.encoding = kv.encoding;
  sequence.sampling = std::move(request.sampling);
  sequence.stop_tokens = std::move(request.stop_tokens);
  sequence.tenant = request.tenant;
  sequence.digest_logits = request.digest_logits;
  sequence.logprob_count = request.logprob_count;
  sequence.score_prompt = request.score_prompt;
  sequence.arrival = arrivals_++;

  const SequenceId id = free_rows_.back();
  free_rows_.pop_back();
  rows_[static_cast<uint32_t>(id)] = {true, std::move(sequence)};
  ++open_;
  return id;
}

uint32_t Engine::used_row(SequenceId sequence) const {
  const auto row = static_cast<uint32_t>(sequence);
  CHECK(row < rows_.size() && rows_[row].used);
  return row;
}

uint32_t Engine::open_row(SequenceId sequence) const {
  const uint32_t row = used_row(sequence);
  CHECK(rows_[row].sequence.state != Sequence::State::kClosing);
  return row;
}

const Sequence& Engine::sequence(SequenceId sequence) const { return rows_[open_row(sequence)].sequence; }

void Engine::begin_prefill(SequenceId sequence) {
  Sequence& begun = rows_[open_row(sequence)].sequence;
  CHECK(begun.state == Sequence::State::kIdle);
  CHECK(begun.computed_tokens < begun.prompt_tokens);
  begun.state = Sequence::State::kPrefilling;
}

void Engine::begin_decode(SequenceId sequence, TokenId first_token, const BlockEncoding& landed) {
  Sequence& begun = rows_[open_row(sequence)].sequence;
  CHECK(begun.state == Sequence::State::kIdle);
  CHECK(first_token < config_.vocab);
  const bool all_cached = begun.cached_tokens == begun.prompt_tokens;  // then nothing came from outside
  begun.computed_tokens = begun.computed_most = begun.prompt_tokens;
  publish_full_blocks(begun, landed);
  if (!all_cached && landed != begun.encoding) begun.encoding.numerics = kNumericsMixed;
  begun.tokens.push_back(first_token);
  begun.state = Sequence::State::kDecoding;
}

void Engine::close(SequenceId sequence) {
  Sequence& closed = rows_[open_row(sequence)].sequence;
  --open_;
  const bool in_step =
      in_flight_ && std::ranges::find(in_flight_->shares, sequence, &StepShare::sequence) != in_flight_->shares.end();
  if (in_step) {
    closed.state = Sequence::State::kClosing;
  } else {
    free_row(sequence);
  }
}

void Engine::free_row(SequenceId sequence) {
  rows_[static_cast<uint32_t>(sequence)] = {};
  free_rows_.push_back(sequence);
}

std::optional<StepPlan> Engine::plan() {
  if (in_flight_) return std::nullopt;
  make_room();
  std::vector<BatchCandidate> candidates;
  candidates.reserve(open_);
  for (uint32_t row = 0; row < rows_.size(); ++row) {
    const Sequence& sequence = rows_[row].sequence;
    if (!rows_[row].used || !sequence.runs()) continue;
    const bool decodes = sequence.state == Sequence::State::kDecoding;
    candidates.push_back({SequenceId{row}, decodes ? 0 : sequence.rows_for_step(), sequence.arrival});
  }
  const std::vector<BatchRow> batch = plan_batch(candidates, config_.limits);
  if (batch.empty()) return std::nullopt;
  check_oldest_moves(batch);
  StepPlan plan;
  plan.step = StepId{++steps_};
  plan.announce_layers = config_.announce_layers;
  for (const BatchRow& row : batch) append_share(plan, row);
  in_flight_ = plan;
  return plan;
}

void Engine::append_share(StepPlan& plan, const BatchRow& row) const {
  const Sequence& sequence = rows_[used_row(row.sequence)].sequence;
  const uint32_t end = sequence.computed_tokens + row.token_count;
  CHECK(end <= sequence.tokens.size() && end <= sequence.reserve_tokens);
  StepShare share;
  share.sequence = row.sequence;
  share.token_first = checked_cast<uint32_t>(plan.tokens.size());
  share.token_count = row.token_count;
  share.position_first = sequence.computed_tokens;
  share.block_first = checked_cast<uint32_t>(plan.blocks.size());
  share.block_count = cache_.config().layout.blocks_for(end);
  share.samples = end == sequence.tokens.size();
  if (share.samples) add_sample(plan, share, sequence);
  if (sequence.score_prompt && !sequence.scored_before()) add_scores(share, sequence);
  plan.tokens.insert(plan.tokens.end(), sequence.tokens.begin() + sequence.computed_tokens,
                     sequence.tokens.begin() + end);
  for (uint32_t block = 0; block < share.block_count; ++block) plan.blocks.push_back(sequence.blocks[block].slot());
  plan.shares.push_back(share);
}

void Engine::on(const StepDone& done, std::vector<EngineToken>& tokens) {
  CHECK(in_flight_ && in_flight_->step == done.step);
  const StepPlan answered = std::move(*in_flight_);
  in_flight_.reset();
  size_t sampled = 0;
  for (const StepShare& share : answered.shares) {
    const SampledToken* token = nullptr;
    if (share.samples) {
      CHECK(sampled < done.sampled.size() && done.sampled[sampled].sequence == share.sequence);
      token = &done.sampled[sampled++];
    }
    const bool scores_finite = std::ranges::none_of(
        done.scored, [&](const ScoredTokens& one) { return one.sequence == share.sequence && !one.finite; });
    advance(share, token, scores_finite, tokens);
    if (rows_[used_row(share.sequence)].sequence.state == Sequence::State::kClosing) free_row(share.sequence);
  }
  CHECK(sampled == done.sampled.size());
}

void Engine::advance(const StepShare& share, const SampledToken* sampled, bool scores_finite,
                     std::vector<EngineToken>& tokens) {
  Sequence& sequence = rows_[used_row(share.sequence)].sequence;
  const bool closing = sequence.state == Sequence::State::kClosing;
  const bool finite = scores_finite && (sampled == nullptr || sampled->finite);
  const uint32_t end = share.position_first + share.token_count;
  sequence.computed_tokens = end;
  counters_.recomputed_tokens +=
      std::min(end, sequence.computed_most) - std::min(share.position_first, sequence.computed_most);
  sequence.computed_most = std::max(sequence.computed_most, end);
  if (finite) {
    publish_full_blocks(sequence, sequence.encoding);  // of a closing sequence too: the work is done
  } else if (!sequence.keys.empty()) {
    cache_.forget(sequence.keys.front());  // one of its blocks may be the cause: all are doubtful, whoever made them
  }
  if (closing) return;
  if (!finite) sequence.state = Sequence::State::kFailed;
  if (sampled == nullptr) return;
  const auto index = static_cast<uint32_t>(sequence.tokens.size()) - sequence.prompt_tokens;
  tokens.push_back({share.sequence, index, sampled->token, sampled->logits_digest, finite, sampled->logprobs});
  if (!finite) return;
  sequence.tokens.push_back(sampled->token);
  sequence.state = Sequence::State::kDecoding;
}

void Engine::publish_full_blocks(Sequence& sequence, const BlockEncoding& encoding) {
  const KvCacheConfig& kv = cache_.config();
  const uint32_t block_tokens = kv.layout.block_tokens;
  for (; (sequence.sealed_blocks + 1) * block_tokens <= sequence.computed_tokens; ++sequence.sealed_blocks) {
    const uint32_t block = sequence.sealed_blocks;
    const auto content = std::span(sequence.tokens).subspan(size_t{block} * block_tokens, block_tokens);
    const BlockKey parent = block == 0 ? BlockKey{} : sequence.keys[block - 1];
    if (block == sequence.keys.size()) sequence.keys.push_back(block_key(sequence.tenant, kv.model, parent, content));
    cache_.publish(sequence.blocks[block].slot(), sequence.keys[block], parent, content, encoding);
  }
}

std::vector<CompletedBlocks> Engine::completed_by(const StepPlan& plan) const {
  const KvLayout& layout = cache_.config().layout;
  std::vector<CompletedBlocks> completed;
  for (const StepShare& share : plan.shares) {
    const Sequence& sequence = rows_[used_row(share.sequence)].sequence;
    if (sequence.state == Sequence::State::kClosing) continue;
    const uint32_t after = share.position_first + share.token_count;
    const uint32_t first = share.position_first / layout.block_tokens;
    const uint32_t end = after == sequence.prompt_tokens ? layout.blocks_for(after) : after / layout.block_tokens;
    if (end > first) completed.push_back({share.sequence, first, end - first});
  }
  return completed;
}

uint32_t Engine::queued_prompt_tokens() const {
  uint32_t queued = 0;
  for (const Row& row : rows_) {
    const Sequence& sequence = row.sequence;
    const bool prefills = sequence.state == Sequence::State::kPrefilling;
    if (row.used && (prefills || sequence.state == Sequence::State::kPreempted)) queued += sequence.rows_left();
  }
  return queued;
}

void Engine::check_conservation() const {
  const KvLayout& layout = cache_.config().layout;
  std::vector<uint32_t> owners(cache_.config().slot_count);
  uint32_t used = 0, closing = 0;
  for (const Row& row : rows_) {
    if (!row.used) continue;
    const Sequence& sequence = row.sequence;
    ++used;
    closing += sequence.state == Sequence::State::kClosing;
    CHECK(sequence.blocks.size() <= layout.blocks_for(sequence.reserve_tokens));
    CHECK(sequence.blocks.size() >= layout.blocks_for(sequence.computed_tokens));
    CHECK(sequence.state != Sequence::State::kPreempted || sequence.blocks.empty());
    CHECK(sequence.computed_tokens <= sequence.reserve_tokens && sequence.computed_tokens <= sequence.tokens.size());
    CHECK(sequence.sealed_blocks <= sequence.computed_tokens / layout.block_tokens);
    for (size_t block = 0; block < sequence.blocks.size(); ++block) {
      const SlotPin& pin = sequence.blocks[block];
      CHECK(pin);
      ++owners[static_cast<uint32_t>(pin.slot())];
      const bool open = block >= sequence.sealed_blocks;
      CHECK(!open || (cache_.pool().count(pin.slot(), PinKind::kOwner) == 1 && !cache_.pool().is_cached(pin.slot())));
    }
  }
  CHECK(used == open_ + closing && used + free_rows_.size() == rows_.size());
  for (uint32_t slot = 0; slot < owners.size(); ++slot) {
    CHECK(cache_.pool().count(SlotId{slot}, PinKind::kOwner) == owners[slot]);
  }
  cache_.check_conservation();
}

}  // namespace spillway
