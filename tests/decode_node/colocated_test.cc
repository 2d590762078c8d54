// Requests whose prompt the decode node computes itself.
#include <gtest/gtest.h>

#include "tests/decode_node/decode_script.h"

namespace spillway::script {
namespace {

constexpr uint32_t kPrompt = 300, kEntries = 3;

std::vector<uint32_t> indices_of(const DecodeScript& d, const Attempt& about) {
  std::vector<uint32_t> found;
  for (const auto& [to, token] : d.sent<Token>())
    if (token.attempt == about) found.push_back(token.index);
  return found;
}

class ColocatedLength : public ::testing::TestWithParam<uint32_t> {};

TEST_P(ColocatedLength, ItComputesDecodesAndLeavesNothingWithoutAnyTransfer) {
  const uint32_t prompt = GetParam(), output = 6;
  DecodeScript d;
  d.connect_gateway();
  d.colocate(prompt, attempt(), output);
  ASSERT_TRUE(d.step);
  EXPECT_EQ(d.step->shares[0].position_first, 0u);
  EXPECT_EQ(d.step->tokens.size(), std::min(prompt, kChunkTokens));
  EXPECT_EQ(d.loads.back().second.queued_prompt_tokens, prompt);
  d.finish_steps();
  EXPECT_EQ(indices_of(d, attempt()), (std::vector<uint32_t>{0, 1, 2, 3, 4, 5}));
  EXPECT_EQ(d.sent<Token>().back().second.finish, FinishReason::kLength);
  EXPECT_EQ(d.messages.size(), output) << "nobody but the gateway hears of it";
  EXPECT_TRUE(d.opened.empty());
  EXPECT_TRUE(d.empty());
  EXPECT_EQ(d.node.next_deadline(), kNever);
}
INSTANTIATE_TEST_SUITE_P(Edges, ColocatedLength, ::testing::Values(1, 63, 64, 65, 128, kChunkTokens + 1, 512));

TEST(DecodeColocated, TheFirstTwoTokensCarryTheTimesOfTheirParts) {
  DecodeScript d;
  d.connect_gateway();
  d.colocate(64, attempt(7));  // one step, and meanwhile another request waits
  d.now += 5 * kMs;
  d.colocate(kPrompt);
  d.now += 3 * kMs;
  d.finish_step();
  d.now += 20 * kMs;
  d.finish_step();
  d.now += 30 * kMs;
  d.finish_step();
  d.now += 4 * kMs;
  d.finish_step();
  std::vector<NodeTimings> timings;
  for (const auto& [to, token] : d.sent<Token>())
    if (token.attempt == attempt() && token.index < 2) timings.push_back(token.timings);
  ASSERT_EQ(timings.size(), 2u);
  EXPECT_EQ(timings[0], (NodeTimings{.wait_us = 3000, .compute_us = 50'000}));
  EXPECT_EQ(timings[1], (NodeTimings{.wait_us = 0, .compute_us = 2000}));  // as the step itself says
}

TEST(DecodeColocated, PromptsAreComputedBetweenTheTokensOfOthers) {
  DecodeScript d;
  d.connect_gateway();
  d.colocate(64, attempt(1), 20);
  d.finish_step();
  d.colocate(3 * kChunkTokens, attempt(2));
  d.finish_step();  // planned before it came
  for (uint32_t chunk = 0; chunk < 3; ++chunk) {
    ASSERT_TRUE(d.step);
    EXPECT_EQ(d.step->shares.size(), 2u);
    EXPECT_EQ(d.step->tokens.size(), 1 + kChunkTokens);
    EXPECT_TRUE(d.step->announce_layers) << "they are its signs of life";
    d.finish_step();
  }
  EXPECT_EQ(indices_of(d, attempt(1)).size(), 5u);
  EXPECT_EQ(indices_of(d, attempt(2)).size(), 1u);
}

TEST(DecodeColocated, APrefixInTheCacheIsNotComputedAgainButItsLastToken) {
  DecodeScript d;
  d.connect_gateway();
  d.colocate(2 * kBlockTokens);
  d.finish_steps();
  d.forget_messages();
  Work again = work(attempt(1), 2 * kBlockTokens);
  again.attempt = attempt(2);
  d.from(kGateway, Reserve{again, kDecodeBoot});
  ASSERT_TRUE(d.step);
  EXPECT_EQ(d.step->shares[0].position_first, kBlockTokens);
  d.finish_steps();
  EXPECT_EQ(d.sent<Token>()[0].second.timings.cached_tokens, kBlockTokens);
}

TEST(DecodeColocated, TokenZeroMayEndIt) {
  DecodeScript d;
  d.connect_gateway();
  d.colocate(kPrompt);
  d.finish_steps(kStopToken);
  ASSERT_EQ(d.sent<Token>().size(), 1u);
  EXPECT_EQ(d.sent<Token>()[0].second.finish, FinishReason::kStop);
  EXPECT_TRUE(d.empty());
}

TEST(DecodeColocated, ANodeThatWasNotToldToRefusesByName) {
  DecodeScript d({.colocates = false});
  d.connect_gateway();
  d.colocate(kPrompt);
  const auto failed = d.sent<Failed>();
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0].second.code, ErrorCode::kUnsupported);
  EXPECT_NE(failed[0].second.detail.find("--colocate"), std::string::npos);
  EXPECT_TRUE(d.empty());
}

TEST(DecodeColocated, CancelsAndLostGatewaysEndItAtOnceWhereverItIs) {
  for (const bool gone : {false, true}) {
    for (const uint32_t steps : {0u, 1u, 2u, 3u}) {
      SCOPED_TRACE(steps);
      DecodeScript d;
      d.connect_gateway();
      d.colocate(kPrompt, attempt(), 20);
      for (uint32_t step = 0; step < steps; ++step) d.finish_step();
      if (gone)
        d.on(PeerGone{kGateway, "killed"});
      else
        d.from(kGateway, Cancel{attempt()});
      EXPECT_EQ(d.node.requests(), 0u);
      d.finish_steps();
      EXPECT_EQ(indices_of(d, attempt()).size(), steps < 2 ? 0 : steps - 1) << "none after the word came";
      EXPECT_TRUE(d.empty());
    }
  }
}

TEST(DecodeColocated, NoPrefillNodeHasASayInIt) {
  DecodeScript d;
  d.connect();
  d.colocate(kPrompt);
  for (const PeerId peer : {kPrefillPeer, kStranger}) {
    d.from(peer, Failed{attempt(), ErrorCode::kInternal, "not mine"});
    d.done(kPrompt);
    d.on(PeerGone{peer, "killed"});
  }
  d.finish_steps();
  EXPECT_EQ(indices_of(d, attempt()).size(), 4u);
}

TEST(DecodeColocated, AStrangerThatClaimsItsBootIdGetsNothing) {
  DecodeScript d;
  d.connect_gateway();
  d.on(PeerUp{kPrefillPeer, hello(Role::kPrefill, kDecodeBoot)});
  d.colocate(kPrompt);
  d.colocate(kPrompt, attempt(2), 5000);  // refused: too long
  for (const SendMessage& one : d.messages) EXPECT_EQ(one.to, kGateway);
  d.on(PeerGone{kPrefillPeer, "killed"});
  d.finish_steps();
  EXPECT_EQ(indices_of(d, attempt()).size(), 4u);
}

TEST(DecodeColocated, TransfersDoNotLimitIt) {
  DecodeScript d({.transfers_max = 1});
  d.connect();
  d.reserve(64, attempt(1));
  d.colocate(64, attempt(2));
  EXPECT_TRUE(d.sent<Failed>().empty());
  d.reserve(64, attempt(3));
  EXPECT_FALSE(d.sent<Failed>().empty());
}

TEST(DecodeColocated, LogitsThatAreNotFiniteFailIt) {
  DecodeScript d;
  d.connect_gateway();
  d.colocate(64);
  d.finish_step(8, false);
  ASSERT_EQ(d.sent<Failed>().size(), 1u);
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kInternal);
  EXPECT_TRUE(d.empty());
}

// Ends the step in flight; each token scored says where it stands.
void end_scored(DecodeScript& d, bool finite = true) {
  ASSERT_TRUE(d.step);
  StepDone done{.step = d.step->step, .sampled = {}, .elapsed = kMs};
  for (const StepShare& share : d.step->shares) {
    ScoredTokens scored{share.sequence, share.position_first + 1, share.logprob_count, finite};
    for (uint32_t row = 0; row < share.score_count; ++row)
      scored.logprobs.insert(scored.logprobs.end(), kEntries, {share.position_first + 1 + row, -1});
    if (share.score_count > 0) done.scored.push_back(scored);
    if (share.samples) done.sampled.push_back({share.sequence, 7, 11, true});
  }
  d.step.reset();
  d.on(done);
}
Work scored_work(uint64_t request) {
  Work made = work(attempt(1), kPrompt);  // the same prompt for all
  made.attempt = attempt(request);
  made.logprob_count = kEntries;
  made.score_prompt = true;
  return made;
}

TEST(DecodeColocated, ScoresAreOfAPromptComputedAnewAndComeBeforeTokenZero) {
  DecodeScript d;
  d.connect_gateway();
  d.colocate(kPrompt);
  d.finish_steps();
  d.forget_messages();
  d.from(kGateway, Reserve{scored_work(2), kDecodeBoot});
  ASSERT_TRUE(d.step);
  EXPECT_EQ(d.step->shares[0].position_first, 0u) << "nothing comes from the cache";
  end_scored(d);
  end_scored(d);
  uint32_t position = 1;
  for (const auto& [to, scores] : d.sent<PromptLogprobs>()) {
    EXPECT_EQ(scores.position_first, position);
    position += static_cast<uint32_t>(scores.logprobs.size() / kEntries);
  }
  EXPECT_EQ(position, kPrompt);
  EXPECT_TRUE(std::holds_alternative<Token>(d.messages.back().message));
  while (d.step) end_scored(d);
  EXPECT_EQ(indices_of(d, attempt(2)), (std::vector<uint32_t>{0, 1, 2, 3}));
}

// The older one's answer outgrows its block when a chunk of the younger one's prompt is scored.
TEST(DecodeColocated, APreemptedPromptIsScoredOnce) {
  DecodeScript d({.slots = 9, .growth_margin = 0});
  d.connect_gateway();
  d.colocate(4 * kBlockTokens - 2, attempt(9), 2 * kBlockTokens);
  end_scored(d);
  d.from(kGateway, Reserve{scored_work(2), kDecodeBoot});
  while (d.step) end_scored(d);
  EXPECT_GT(d.engine.counters().preemptions, 0u);
  uint32_t position = 1;
  for (const auto& [to, scores] : d.sent<PromptLogprobs>()) {
    EXPECT_EQ(scores.position_first, position);
    position += static_cast<uint32_t>(scores.logprobs.size() / kEntries);
  }
  EXPECT_EQ(position, kPrompt);
  EXPECT_EQ(indices_of(d, attempt(2)), (std::vector<uint32_t>{0, 1, 2, 3}));
  EXPECT_TRUE(d.empty());
}

TEST(DecodeColocated, ScoresThatAreNotFiniteFailTheRequestAlone) {
  DecodeScript d;
  d.connect_gateway();
  d.from(kGateway, Reserve{scored_work(2), kDecodeBoot});
  d.colocate(64, attempt(3));
  end_scored(d, false);
  ASSERT_EQ(d.sent<Failed>().size(), 1u);
  EXPECT_EQ(d.sent<Failed>()[0].second.attempt, attempt(2));
  d.finish_steps();
  EXPECT_EQ(indices_of(d, attempt(3)).size(), 4u);
}

}  // namespace
}  // namespace spillway::script
