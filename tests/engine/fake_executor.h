#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "common/check.h"
#include "engine/compute_job.h"

namespace spillway {

inline constexpr uint32_t kFakeVocab = 1000;

// The KV row of a token: a hash of everything up to it.
inline uint64_t fake_row(uint64_t before, TokenId token) {
  uint64_t hash = (before ^ token) * 0x9E3779B97F4A7C15ull;
  hash ^= hash >> 29;
  return hash * 0xBF58476D1CE4E5B9ull + 1;
}

inline TokenId fake_sample(uint64_t row, const SampleRow& sample) {
  return static_cast<TokenId>((row ^ sample.params.seed ^ (uint64_t{sample.position} << 40)) % kFakeVocab);
}

// What a correct server generates for `prompt`.
inline std::vector<TokenId> fake_reference(std::span<const TokenId> prompt, size_t count, uint64_t seed) {
  uint64_t row = 0;
  for (const TokenId token : prompt) row = fake_row(row, token);
  std::vector<TokenId> generated;
  SampleRow sample;
  sample.params.seed = seed;
  while (generated.size() < count) {
    sample.position = static_cast<uint32_t>(prompt.size() + generated.size());
    generated.push_back(fake_sample(row, sample));
    row = fake_row(row, generated.back());
  }
  return generated;
}

// Executes plans over slots of hashes, as the compute thread does over slots of KV: each row is computed from what lies
// in the slot before it, so a wrong, stale or swapped block changes every later token.
class FakeExecutor {
 public:
  FakeExecutor(uint32_t slots, uint32_t block_tokens) : block_tokens_(block_tokens), rows_(slots * block_tokens) {}

  StepDone run(const StepPlan& plan) {
    StepDone done;
    done.step = plan.step;
    for (const StepShare& share : plan.shares) {
      const uint64_t last = append(plan, share, share.token_count);
      if (!share.samples) continue;
      done.sampled.push_back({share.sequence, fake_sample(last, share.sample), share.sample.digest ? last : 0, true});
    }
    return done;
  }
  std::span<uint64_t> block(SlotId slot) {
    return std::span(rows_).subspan(size_t{static_cast<uint32_t>(slot)} * block_tokens_, block_tokens_);
  }

 private:
  uint64_t& row(const StepPlan& plan, const StepShare& share, uint32_t position) {
    CHECK(position / block_tokens_ < share.block_count);
    return block(plan.blocks[share.block_first + position / block_tokens_])[position % block_tokens_];
  }
  uint64_t append(const StepPlan& plan, const StepShare& share, uint32_t count) {
    uint64_t before = share.position_first == 0 ? 0 : row(plan, share, share.position_first - 1);
    for (uint32_t i = 0; i < count; ++i) {
      before = fake_row(before, plan.tokens[share.token_first + i]);
      row(plan, share, share.position_first + i) = before;
    }
    return before;
  }
  const uint32_t block_tokens_;
  std::vector<uint64_t> rows_;
};

// Equal but for the StepId.
inline bool same_content(const StepPlan& a, const StepPlan& b) {
  const auto same_share = [](const StepShare& x, const StepShare& y) {
    return x.sequence == y.sequence && x.token_first == y.token_first && x.token_count == y.token_count &&
           x.position_first == y.position_first && x.block_first == y.block_first && x.block_count == y.block_count &&
           x.samples == y.samples && x.sample.params == y.sample.params && x.sample.position == y.sample.position &&
           x.sample.prompt_tokens == y.sample.prompt_tokens && x.history_first == y.history_first &&
           x.sample.digest == y.sample.digest;
  };
  return a.tokens == b.tokens && a.blocks == b.blocks && a.history == b.history &&
         a.announce_layers == b.announce_layers && std::ranges::equal(a.shares, b.shares, same_share);
}

}  // namespace spillway
