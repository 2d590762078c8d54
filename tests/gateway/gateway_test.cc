// Streams: order of tokens, ends, failures, cancellation.
#include "gateway/gateway.h"

#include <gtest/gtest.h>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;
using Codes = std::vector<ErrorCode>;
using Tokens = std::vector<TokenId>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;
constexpr PeerId kP2 = GatewayUnderTest::kP2, kD2 = GatewayUnderTest::kD2;

TEST(Gateway, TokenOneMayOvertakeTokenZero) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  test.token(kD, test.attempt(), 1);
  test.token(kD, test.attempt(), 2);
  EXPECT_TRUE(test.tokens.empty());
  test.token(kP, test.attempt(), 0);
  EXPECT_EQ(test.streamed(request), (Tokens{100, 101, 102}));
  for (uint32_t index = 0; index < 3; ++index) EXPECT_EQ(test.tokens[index].index, index);
}

TEST(Gateway, DoubledTokensAreStreamedOnce) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  const Attempt attempt = test.attempt();
  for (int copy = 0; copy < 2; ++copy) test.token(kD, attempt, 1);
  for (int copy = 0; copy < 2; ++copy) test.token(kP, attempt, 0);
  test.token(kD, attempt, 1);
  EXPECT_EQ(test.streamed(request), (Tokens{100, 101}));
}

TEST(Gateway, TheEndComesOnceAndNothingAfterIt) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  const Attempt attempt = test.attempt();
  test.token(kP, attempt, 0);
  test.token(kD, attempt, 1, FinishReason::kStop);
  EXPECT_FALSE(test.tokens.at(0).stops);
  EXPECT_TRUE(test.tokens.at(1).stops);
  ASSERT_EQ(test.ends.size(), 1u);
  EXPECT_EQ(test.ends[0].finish, FinishReason::kStop);
  test.token(kD, attempt, 1, FinishReason::kStop);
  test.token(kD, attempt, 2);
  test.message(kD, Failed{attempt, ErrorCode::kInternal, "late"});
  test.on(PeerGone{kD, "died"});
  test.on(ClientGone{request});
  test.advance(1h);
  EXPECT_EQ(test.streamed(request), (Tokens{100, 101}));
  EXPECT_EQ(test.ends.size(), 1u);
  EXPECT_TRUE(test.errors.empty());
  EXPECT_EQ(test.gateway.counters().finished, 1u);
  EXPECT_EQ(test.gateway.counters().output_tokens, 2u);
}

TEST(Gateway, WaitingTokensOfOneStreamAreBounded) {
  GatewayUnderTest test({.ahead_max = 2});
  test.up_pair();
  const RequestId request = test.arrive(20, 50);
  test.token(kD, test.attempt(), 1);
  test.token(kD, test.attempt(), 2);
  EXPECT_TRUE(test.errors.empty());
  test.token(kD, test.attempt(), 3);
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kInternal});
  EXPECT_EQ(test.all<Cancel>(kP).size(), 1u);
  EXPECT_EQ(test.all<Cancel>(kD).size(), 1u);
}

TEST(Gateway, OnlyTheLegsOfTheAttemptAreHeard) {
  GatewayUnderTest test;
  test.up_pair();
  test.arrive();
  const Attempt attempt = test.attempt();
  test.up(kP2, Role::kPrefill);
  test.up(kD2, Role::kDecode);
  test.token(kP2, attempt, 0);
  test.token(kD, attempt, 0);  // token 0 is P's to say
  test.token(kP, attempt, 1);  // and the others are D's
  test.token(kD2, attempt, 1);
  test.message(kD2, Failed{attempt, ErrorCode::kInternal, "not yours"});
  test.refuse(kP2, attempt);
  test.on(PeerGone{kD2, "died"});
  EXPECT_TRUE(test.tokens.empty());
  EXPECT_TRUE(test.errors.empty());
  EXPECT_EQ(test.gateway.counters().running, 1u);
}

TEST(Gateway, ATokenPastTheLimitOrALastOneWithoutEndIsAnError) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId past = test.arrive(20, 2);
  test.token(kD, test.attempt(), 2);
  EXPECT_EQ(test.errors_of(past), Codes{ErrorCode::kCorrupt});
  const RequestId open_ended = test.arrive(20, 2);
  test.token(kP, test.attempt(), 0);
  test.token(kD, test.attempt(), 1);
  EXPECT_EQ(test.errors_of(open_ended), Codes{ErrorCode::kCorrupt});
}

TEST(Gateway, AFailureReachesTheClientAndTheOtherLeg) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  test.message(kP, Failed{test.attempt(), ErrorCode::kInternal, "not finite"});
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kInternal});
  EXPECT_NE(test.errors[0].error.detail.find("prefill 1: not finite"), std::string::npos);
  EXPECT_EQ(test.all<Cancel>(kD).size(), 1u);
  EXPECT_TRUE(test.all<Cancel>(kP).empty());
  EXPECT_EQ(test.gateway.counters().errors.at(ErrorCode::kInternal), 1u);
}

TEST(Gateway, NoSpaceAfterATokenOfTheDecodeNodeIsAnError) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  test.token(kP, test.attempt(), 0);
  test.token(kD, test.attempt(), 1);
  test.refuse(kD, test.attempt());
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kNoSpace});
}

TEST(Gateway, TheLossOfANodeNamesItAndCancelsTheOther) {
  for (const PeerId lost : {kP, kD}) {
    GatewayUnderTest test;
    test.up_pair();
    const RequestId request = test.arrive();
    if (lost == kD) test.token(kP, test.attempt(), 0);
    test.on(PeerGone{lost, "silent"});
    EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kPeerLost});
    EXPECT_NE(test.errors[0].error.detail.find(lost == kP ? "prefill 1 is gone: silent" : "decode 2 is gone: silent"),
              std::string::npos);
    EXPECT_EQ(test.all<Cancel>(lost == kP ? kD : kP).size(), 1u);
    EXPECT_TRUE(test.all<Cancel>(lost).empty());
    EXPECT_FALSE(test.gateway.health(test.now).ready());
  }
}

TEST(Gateway, TheLossOfPDoesNotMatterOnceDDecodes) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  const Attempt attempt = test.attempt();
  test.token(kP, attempt, 0);
  test.token(kD, attempt, 1);
  test.message(kP, Failed{attempt, ErrorCode::kDeadline, "let go"});
  test.on(PeerGone{kP, "died"});
  test.token(kD, attempt, 2, FinishReason::kLength);
  EXPECT_TRUE(test.errors.empty());
  EXPECT_EQ(test.streamed(request), (Tokens{100, 101, 102}));
  EXPECT_EQ(test.ends.size(), 1u);
}

TEST(Gateway, TheLossOfPBeforeDDecodesIsAnError) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  test.token(kP, test.attempt(), 0);
  test.on(PeerGone{kP, "died"});
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kPeerLost});
}

TEST(Gateway, WhatANodeDoesNotTakeIsNotTheClientsFault) {
  for (const auto& [of_node, told] : {std::pair(ErrorCode::kInvalidArgument, ErrorCode::kInternal),
                                      std::pair(ErrorCode::kUnsupported, ErrorCode::kUnavailable),
                                      std::pair(ErrorCode::kTooLong, ErrorCode::kTooLong)}) {
    GatewayUnderTest test;
    test.up_pair();
    const RequestId request = test.arrive();
    test.message(kD, Failed{test.attempt(), of_node, "the reason"});
    EXPECT_EQ(test.errors_of(request), Codes{told});
    EXPECT_NE(test.errors[0].error.detail.find("decode 2: the reason"), std::string::npos);
  }
}

TEST(Gateway, AClientThatLeavesCancelsBothLegsAtOnce) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  const Attempt attempt = test.attempt();
  test.token(kP, attempt, 0);
  test.on(ClientGone{request});
  EXPECT_EQ(test.all<Cancel>(kP), std::vector<Cancel>{{attempt}});
  EXPECT_EQ(test.all<Cancel>(kD), std::vector<Cancel>{{attempt}});
  test.token(kD, attempt, 1);
  EXPECT_EQ(test.tokens.size(), 1u);
  EXPECT_TRUE(test.errors.empty());
  EXPECT_EQ(test.gateway.counters().running, 0u);
  EXPECT_EQ(test.gateway.counters().cancelled, 1u);
}

TEST(Gateway, AStopStringEndsWellAndCancelsBothLegsAtOnce) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  const Attempt attempt = test.attempt();
  test.token(kP, attempt, 0);
  test.on(StopFound{request});
  EXPECT_EQ(test.all<Cancel>(kP), std::vector<Cancel>{{attempt}});
  EXPECT_EQ(test.all<Cancel>(kD), std::vector<Cancel>{{attempt}});
  ASSERT_EQ(test.ends.size(), 1u);
  EXPECT_EQ(test.ends[0].finish, FinishReason::kStop);
  EXPECT_EQ(test.ends[0].waterfall.output_tokens, 1u);
  test.token(kD, attempt, 1);
  test.on(StopFound{request});  // it has ended meanwhile
  EXPECT_EQ(test.tokens.size(), 1u);
  EXPECT_EQ(test.ends.size(), 1u);
  EXPECT_EQ(test.gateway.counters().finished, 1u);
  EXPECT_EQ(test.gateway.counters().cancelled, 0u);
}

TEST(Gateway, AClientThatLeavesTheQueueIsNeverSent) {
  GatewayUnderTest test;
  const RequestId request = test.arrive();
  test.on(ClientGone{request});
  test.up_pair();
  test.advance(1ms);
  EXPECT_TRUE(test.sent.empty());
  EXPECT_EQ(test.gateway.counters().queued, 0u);
}

TEST(Gateway, ARequestWithoutProgressIsGivenUp) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  test.advance(20s);
  test.token(kP, test.attempt(), 0);  // progress
  test.advance(20s);
  test.token(kD, test.attempt(), 2);  // none: token 1 is missing
  EXPECT_EQ(test.gateway.next_deadline(), test.now + 10s);
  test.advance(10s);
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kDeadline});
  EXPECT_NE(test.errors[0].error.detail.find("decode 2 made no progress with this request for 30 s, the limit"),
            std::string::npos);
  EXPECT_NE(test.errors[0].error.detail.find("--chunk-tokens"), std::string::npos);
  EXPECT_EQ(test.all<Cancel>(kP).size(), 1u);
  EXPECT_EQ(test.all<Cancel>(kD).size(), 1u);
}

TEST(Gateway, TheWaterfallAddsUpWhatNodesAndClockSaid) {
  GatewayUnderTest test;
  const RequestId request = test.arrive(20, 3);
  test.now += 5ms;
  test.up_pair();
  test.now += 10ms;
  test.timings = {.wait_us = 1000, .compute_us = 9000, .cached_tokens = 16};
  const Attempt attempt{request, TransferId{BootId{77}, 1}, Epoch{1}};
  test.token(kP, attempt, 0);
  test.now += 4ms;
  test.timings = {.wait_us = 300, .compute_us = 700, .transfer_us = 6000, .commit_us = 50, .cached_tokens = 4};
  test.token(kD, attempt, 1);
  test.now += 2ms;
  test.timings = {};
  test.token(kD, attempt, 2, FinishReason::kLength);
  ASSERT_EQ(test.ends.size(), 1u);
  const Waterfall& waterfall = test.ends[0].waterfall;
  EXPECT_EQ(waterfall.queue, 5ms);
  EXPECT_EQ(waterfall.prefill_wait, 1ms);
  EXPECT_EQ(waterfall.prefill, 9ms);
  EXPECT_EQ(waterfall.transfer, 6ms);
  EXPECT_EQ(waterfall.commit, 50us);
  EXPECT_EQ(waterfall.decode_queue, 300us);
  EXPECT_EQ(waterfall.decode_step, 700us);
  EXPECT_EQ(waterfall.ttft, 15ms);
  EXPECT_EQ(waterfall.handover, 4ms);
  EXPECT_EQ(waterfall.total, 21ms);
  EXPECT_EQ(waterfall.prompt_tokens, 20u);
  EXPECT_EQ(waterfall.output_tokens, 3u);
  EXPECT_EQ(waterfall.prefill_cached_tokens, 16u);
  EXPECT_EQ(waterfall.decode_cached_tokens, 4u);
}

TEST(Gateway, TokensAreCountedAsTheyLeaveAndTimedFromTheArrival) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive(20, 5);
  test.now += 7ms;
  test.timings.cached_tokens = 16;
  test.token(kP, test.attempt(), 0);
  EXPECT_EQ(test.gateway.counters().output_tokens, 1u);
  EXPECT_EQ(test.gateway.counters().prompt_tokens, 20u);
  EXPECT_EQ(test.gateway.counters().cached_tokens, 16u);
  test.token(kD, test.attempt(), 1);
  test.now += 2ms;
  test.token(kD, test.attempt(), 2);
  test.token(kD, test.attempt(), 4, FinishReason::kLength);  // waits for token 3
  EXPECT_EQ(test.tokens[0].since_arrival, 7ms);
  EXPECT_EQ(test.tokens[2].since_arrival, 9ms);
  test.on(ClientGone{request});
  EXPECT_EQ(test.gateway.counters().output_tokens, 3u);
  EXPECT_EQ(test.gateway.counters().cached_tokens, 16u);
  EXPECT_EQ(test.gateway.counters().finished, 0u);
}

TEST(Gateway, MessagesOfStrangersChangeNothing) {
  GatewayUnderTest test;
  test.message(PeerId{9}, Load{5, 5, 5});
  test.token(PeerId{9}, Attempt{}, 0);
  test.on(PeerGone{PeerId{9}, "who?"});
  test.on(ClientGone{RequestId{BootId{77}, 99}});
  EXPECT_TRUE(test.sent.empty());
  EXPECT_TRUE(test.tokens.empty());
  EXPECT_EQ(test.gateway.counters().blocks_free, 0u);
}

TEST(GatewayCounts, TotalsOfNodesGrowFromTheirFirstLoadAndOutliveThem) {
  GatewayUnderTest test;
  test.announces = false;
  test.up_pair();
  test.up(kD2, Role::kDecode);
  const auto announce = [&](PeerId node, uint64_t steps) {
    Load load{64, 0, 0};
    load.totals = {.steps = steps, .step_tokens = 10 * steps, .step_sequences = 3 * steps, .transfers = steps};
    test.message(node, load);
  };
  announce(kD, 1000);  // before this gateway knew it
  announce(kD2, 0);
  EXPECT_EQ(test.gateway.counters().decode.totals, NodeTotals{});
  announce(kD, 1005);
  announce(kD2, 7);
  announce(kP, 1);
  announce(kP, 3);
  NodeTotals expected{.steps = 12, .step_tokens = 120, .step_sequences = 36, .transfers = 12};
  EXPECT_EQ(test.gateway.counters().decode.totals, expected);
  EXPECT_EQ(test.gateway.counters().prefill.totals.steps, 2u);
  announce(kD, 3);  // a node that says nonsense: a counter never falls
  test.on(PeerGone{kD2, "hung up"});
  EXPECT_EQ(test.gateway.counters().decode.totals, expected);
}

TEST(GatewayCounts, BlocksAreFreeCachedOrUsed) {
  GatewayUnderTest test;
  test.up_pair();
  test.message(kD, Load{.blocks_free = 50, .running_sequences = 2, .blocks_cached = 20});
  GatewayCounters counters = test.gateway.counters();
  EXPECT_EQ(counters.decode.blocks_free, 30u);
  EXPECT_EQ(counters.decode.blocks_cached, 20u);
  EXPECT_EQ(counters.decode.blocks_used, 14u);
  EXPECT_EQ(counters.prefill.blocks_free, 64u);
  EXPECT_EQ(counters.blocks_free, 114u);
  test.message(
      kD, Load{.blocks_free = 9999, .running_sequences = 2, .blocks_cached = 99999});  // nonsense adds up all the same
  counters = test.gateway.counters();
  EXPECT_EQ(counters.decode.blocks_free, 0u);
  EXPECT_EQ(counters.decode.blocks_cached, 64u);
  EXPECT_EQ(counters.decode.blocks_used, 0u);
}

}  // namespace
}  // namespace spillway
