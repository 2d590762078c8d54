#include "scheduler/batching.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace spillway {
namespace {

std::vector<std::pair<uint32_t, uint32_t>> plain(const std::vector<BatchRow>& rows) {
  std::vector<std::pair<uint32_t, uint32_t>> pairs;
  for (const BatchRow& row : rows) pairs.emplace_back(static_cast<uint32_t>(row.sequence), row.token_count);
  return pairs;
}

using Pairs = std::vector<std::pair<uint32_t, uint32_t>>;

TEST(PlanBatch, DecodesFirstThenChunksInOrderOfArrival) {
  const std::vector<BatchCandidate> candidates{
      {SequenceId{0}, 100, 5}, {SequenceId{1}, 0, 9}, {SequenceId{2}, 40, 2}, {SequenceId{3}, 0, 1}};
  EXPECT_EQ(plain(plan_batch(candidates, {.tokens_max = 80, .chunk_tokens = 64, .sequences_max = 8})),
            (Pairs{{3, 1}, {1, 1}, {2, 40}, {0, 38}}));
  EXPECT_EQ(plain(plan_batch(candidates, {.tokens_max = 200, .chunk_tokens = 64, .sequences_max = 3})),
            (Pairs{{3, 1}, {1, 1}, {2, 40}}));
}

TEST(PlanBatch, NothingToDoGivesNothing) {
  EXPECT_TRUE(plan_batch({}, {.tokens_max = 8, .chunk_tokens = 8, .sequences_max = 8}).empty());
}

struct Case {
  std::vector<BatchCandidate> candidates;
  BatchLimits limits;
  std::map<SequenceId, uint32_t> counts;  // of the plan
  std::vector<BatchRow> rows;
  const BatchCandidate& candidate(SequenceId id) const {
    return *std::ranges::find(candidates, id, &BatchCandidate::sequence);
  }
};

Case any_case() {
  Case made;
  made.limits = {*rc::gen::inRange(0u, 40u), *rc::gen::inRange(1u, 20u), *rc::gen::inRange(0u, 12u)};
  const auto shape = *rc::gen::container<std::vector<std::pair<uint32_t, uint64_t>>>(
      rc::gen::pair(rc::gen::weightedOneOf<uint32_t>({{1, rc::gen::just(0u)}, {1, rc::gen::inRange(1u, 50u)}}),
                    rc::gen::inRange<uint64_t>(0, 10)));
  for (const auto& [left, arrival] : shape) {
    made.candidates.push_back({SequenceId{static_cast<uint32_t>(made.candidates.size())}, left, arrival});
  }
  made.rows = plan_batch(made.candidates, made.limits);
  for (const BatchRow& row : made.rows) made.counts[row.sequence] += row.token_count;
  return made;
}

RC_GTEST_PROP(PlanBatch, NeverExceedsALimit, ()) {
  const Case c = any_case();
  RC_ASSERT(c.rows.size() <= c.limits.sequences_max);
  RC_ASSERT(c.counts.size() == c.rows.size());  // one row a sequence
  uint64_t total = 0;
  for (const BatchRow& row : c.rows) {
    RC_ASSERT(row.token_count > 0u);
    const uint32_t left = c.candidate(row.sequence).prompt_tokens_left;
    RC_ASSERT(row.token_count <= (left == 0 ? 1 : std::min(left, c.limits.chunk_tokens)));
    total += row.token_count;
  }
  RC_ASSERT(total <= c.limits.tokens_max);
}

RC_GTEST_PROP(PlanBatch, DecodesAreNeverStarvedByPrompts, ()) {
  const Case c = any_case();
  const auto decodes = static_cast<uint32_t>(std::ranges::count(c.candidates, 0u, &BatchCandidate::prompt_tokens_left));
  const uint32_t room = std::min(c.limits.tokens_max, c.limits.sequences_max);
  const auto planned = static_cast<uint32_t>(std::ranges::count_if(
      c.rows, [&](const BatchRow& row) { return c.candidate(row.sequence).prompt_tokens_left == 0; }));
  RC_ASSERT(planned == std::min(decodes, room));
}

RC_GTEST_PROP(PlanBatch, PromptGetsTokensOnlyAfterAllEarlierGotTheirChunk, ()) {
  const Case c = any_case();
  for (const BatchCandidate& later : c.candidates) {
    if (later.prompt_tokens_left == 0 || !c.counts.contains(later.sequence)) continue;
    for (const BatchCandidate& earlier : c.candidates) {
      if (earlier.prompt_tokens_left == 0) continue;
      if (std::tuple(earlier.arrival, earlier.sequence) >= std::tuple(later.arrival, later.sequence)) continue;
      RC_ASSERT(c.counts.contains(earlier.sequence));
      RC_ASSERT(c.counts.at(earlier.sequence) == std::min(earlier.prompt_tokens_left, c.limits.chunk_tokens));
    }
  }
}

RC_GTEST_PROP(PlanBatch, LeavesNoTokenUnusedThatSomebodyWants, ()) {
  const Case c = any_case();
  if (c.rows.size() == c.limits.sequences_max) return;
  uint64_t wanted = 0, given = 0;
  for (const BatchCandidate& each : c.candidates) {
    wanted += each.prompt_tokens_left == 0 ? 1 : std::min(each.prompt_tokens_left, c.limits.chunk_tokens);
  }
  for (const BatchRow& row : c.rows) given += row.token_count;
  RC_ASSERT(given == std::min<uint64_t>(wanted, c.limits.tokens_max));
}

RC_GTEST_PROP(PlanBatch, OrderOfCandidatesDoesNotMatter, ()) {
  Case c = any_case();
  std::ranges::reverse(c.candidates);
  const auto reversed = plain(plan_batch(c.candidates, c.limits));
  std::ranges::rotate(c.candidates, c.candidates.begin() + static_cast<ptrdiff_t>(c.candidates.size() / 2));
  RC_ASSERT(reversed == plain(c.rows));
  RC_ASSERT(plain(plan_batch(c.candidates, c.limits)) == plain(c.rows));
}

}  // namespace
}  // namespace spillway
