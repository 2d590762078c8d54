// Decode nodes that compute prompts too, with and without prefill nodes beside them.
#include <gtest/gtest.h>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;
using Codes = std::vector<ErrorCode>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD, kD2 = GatewayUnderTest::kD2;

void up_colocated(GatewayUnderTest& test, PeerId peer, uint32_t blocks = 64) {
  Hello hello = GatewayUnderTest::hello(peer, Role::kDecode, blocks);
  hello.growth_margin = 16;
  hello.colocates = true;
  test.on(PeerUp{peer, hello});
}
Attempt last_attempt(const GatewayUnderTest& test, PeerId decode = kD) {
  return test.all<Reserve>(decode).back().work.attempt;
}

TEST(GatewayColocated, OneNodeGetsTheWholeRequestAndIsEnoughToBeReady) {
  GatewayUnderTest test;
  EXPECT_FALSE(test.gateway.health(test.now).ready());
  up_colocated(test, kD);
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  const RequestId request = test.arrive();
  ASSERT_EQ(test.all<Reserve>(kD).size(), 1u);
  EXPECT_EQ(test.all<Reserve>(kD)[0].prefill, GatewayUnderTest::boot_of(kD));
  const Attempt attempt = last_attempt(test);
  test.timings = {.wait_us = 1000, .compute_us = 2000, .cached_tokens = 16};
  test.token(kD, attempt, 0);
  test.timings = {.wait_us = 10, .compute_us = 20};
  test.token(kD, attempt, 1);
  test.token(kD, attempt, 2, FinishReason::kStop);
  EXPECT_EQ(test.streamed(request), (std::vector<TokenId>{100, 101, 102}));
  ASSERT_EQ(test.ends.size(), 1u);
  const Waterfall& waterfall = test.ends[0].waterfall;
  EXPECT_TRUE(waterfall.colocated);
  EXPECT_EQ(waterfall.prefill_wait, 1ms);
  EXPECT_EQ(waterfall.prefill, 2ms);
  EXPECT_EQ(waterfall.prefill_cached_tokens, 16u);
  EXPECT_EQ(waterfall.decode_queue, 10us);
  EXPECT_EQ(waterfall.transfer, 0ms);
  EXPECT_TRUE(test.all<Cancel>(kD).empty());
}

TEST(GatewayColocated, AChunkOfAPromptIsProgressThoughAnotherRequestEndsWithIt) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  const RequestId request = test.arrive();
  Load load{.blocks_free = 64, .running_sequences = 9, .queued_prompt_tokens = 100};
  const auto step = [&](uint64_t tokens) {
    --load.running_sequences;
    --load.queued_prompt_tokens;
    load.totals.step_tokens += tokens;
    load.totals.step_sequences += 2;
    test.message(kD, load);
    test.advance(GatewayConfig().progress_max * 2 / 3);
  };
  for (int turn = 0; turn < 4; ++turn) step(3);
  EXPECT_TRUE(test.errors.empty());
  for (int turn = 0; turn < 2; ++turn) step(2);  // of others alone
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kDeadline});
}

TEST(GatewayColocated, CountersTellRolesAsAnnounced) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  EXPECT_EQ(test.gateway.counters().prefill_nodes, 0u);
  EXPECT_EQ(test.gateway.counters().decode_nodes, 1u);
}

TEST(GatewayColocated, APrefillNodeThatJoinsComputesThePromptsUntilItLeaves) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  test.arrive();
  test.up(kP, Role::kPrefill);
  EXPECT_EQ(test.all<PeerInfo>(kP).size(), 1u);
  test.arrive();
  ASSERT_EQ(test.all<Prefill>(kP).size(), 1u);
  EXPECT_EQ(test.all<Reserve>(kD)[1].prefill, GatewayUnderTest::boot_of(kP));
  test.message(kP, Load{.blocks_free = 64, .running_sequences = 1, .draining = true});
  test.arrive();
  EXPECT_EQ(test.all<Prefill>(kP).size(), 1u);
  EXPECT_EQ(test.all<Reserve>(kD)[2].prefill, GatewayUnderTest::boot_of(kD));
  test.on(PeerGone{kP, "left"});
  test.arrive();
  EXPECT_EQ(test.all<Reserve>(kD)[3].prefill, GatewayUnderTest::boot_of(kD));
  EXPECT_EQ(test.errors.size(), 1u) << "the one that was on the prefill node";
}

TEST(GatewayColocated, ClientsThatLeaveCostOneCancel) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  for (const bool computed : {false, true}) {
    const RequestId request = test.arrive();
    if (computed) test.token(kD, last_attempt(test), 0);
    test.sent.clear();
    test.on(ClientGone{request});
    EXPECT_EQ(test.all<Cancel>(kD).size(), 1u);
  }
}

TEST(GatewayColocated, ItsPromptTokensLockTheNodeUntilTokenZero) {
  GatewayUnderTest test;
  up_colocated(test, kD, 4096);
  for (int prompt = 0; prompt < 3; ++prompt) test.arrive(500, 2);  // two steps of 512 tokens are 1024
  EXPECT_EQ(test.all<Reserve>(kD).size(), 3u);
  const Attempt first = test.all<Reserve>(kD)[0].work.attempt;
  test.message(kD, Load{.blocks_free = 4000, .running_sequences = 3, .queued_prompt_tokens = 1500});
  test.arrive(20, 2);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 3u);
  test.token(kD, first, 0);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 4u) << "1000 tokens are left";
  EXPECT_TRUE(test.all<Want>(kD).empty()) << "more room would not help";
}

TEST(GatewayColocated, ItPromisesPromptAndMarginAndWaitsForRoom) {
  GatewayUnderTest test;
  up_colocated(test, kD, 6);
  test.arrive(20, 60);  // five blocks in all, three at first
  test.arrive(20, 60);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  test.arrive(4, 4);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  EXPECT_EQ(test.all<Want>(kD).back(), Want{1});
  EXPECT_EQ(test.errors_of(test.arrive(20, 77)), Codes{ErrorCode::kTooLong});
}

TEST(GatewayColocated, ARefusedOneIsTriedAgainAndALostOneFails) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  const RequestId request = test.arrive();
  test.refuse(kD, last_attempt(test));
  EXPECT_TRUE(test.all<Cancel>(kD).empty());
  test.advance(1s);
  ASSERT_EQ(test.all<Reserve>(kD).size(), 2u);
  EXPECT_EQ(last_attempt(test).epoch, Epoch{2});
  test.token(kD, last_attempt(test), 0);
  test.on(PeerGone{kD, "killed"});
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kPeerLost});
  EXPECT_EQ(test.streamed(request).size(), 1u);
}

TEST(GatewayColocated, ScoresComeFromTheDecodeNode) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  GenerateRequest work;
  work.request = {BootId{77}, 1000};
  work.prompt.assign(20, TokenId{5});
  work.output_tokens_max = 4;
  work.logprob_count = 1;
  work.score_prompt = true;
  test.on(RequestArrived{work});
  const PromptLogprobs scores{last_attempt(test), 1, 1, {{5, -1.0f}, {5, -2.0f}}};
  test.message(kD, scores);
  ASSERT_EQ(test.scores.size(), 1u);
  EXPECT_EQ(test.scores[0].logprobs, scores.logprobs);
  test.token(kD, last_attempt(test), 0);
  test.message(kD, scores);
  EXPECT_EQ(test.scores.size(), 1u) << "late";
}

TEST(GatewayColocated, FurtherChoicesRunBesideTheFirst) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  up_colocated(test, kD2);
  const RequestId leader = test.arrive(40);
  const PeerId home = test.all<Reserve>(kD).empty() ? kD2 : kD;
  GenerateRequest follower;
  follower.request = {BootId{77}, 1000};
  follower.prompt.assign(40, TokenId{5});
  follower.output_tokens_max = 4;
  follower.leader = leader;
  test.on(RequestArrived{follower});
  EXPECT_EQ(test.all<Reserve>(home).size(), 1u) << "it waits for the blocks";
  test.token(home, last_attempt(test, home), 0);
  test.token(home, last_attempt(test, home), 1);
  ASSERT_EQ(test.all<Reserve>(home).size(), 2u);
  EXPECT_EQ(last_attempt(test, home).request, follower.request);
  EXPECT_EQ(test.all<Reserve>(home)[1].prefill, GatewayUnderTest::boot_of(home));
}

TEST(GatewayColocated, ItsTroubleIsToldOnce) {
  GatewayUnderTest test;
  up_colocated(test, kD);
  test.message(kD, Load{.blocks_free = 64, .running_sequences = 1, .stalled_ms = 6000});
  EXPECT_EQ(test.gateway.health(test.now).reasons.size(), 1u);
  up_colocated(test, kD2);
  const GatewayHealth health = test.gateway.health(test.now);
  EXPECT_TRUE(health.ready());
  EXPECT_EQ(health.degraded.size(), 1u);
  test.on(PeerGone{kD2, "left"});
  test.up(kP, Role::kPrefill);
  EXPECT_EQ(test.gateway.health(test.now).reasons.size(), 1u);
  EXPECT_TRUE(test.gateway.health(test.now).degraded.empty());
}

// It would be asked to compute prompts that it cannot hold.
TEST(GatewayColocated, APrefillNodeTooSmallForThePromptIsAsGoodAsNone) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill, 1);
  up_colocated(test, kD);
  test.arrive(40);
  EXPECT_TRUE(test.all<Prefill>(kP).empty());
  ASSERT_EQ(test.all<Reserve>(kD).size(), 1u);
  EXPECT_EQ(test.all<Reserve>(kD)[0].prefill, GatewayUnderTest::boot_of(kD));
}

}  // namespace
}  // namespace spillway
