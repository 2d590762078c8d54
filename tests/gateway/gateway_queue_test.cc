// The only queue: admission, placement, refusals, waits.
#include <gtest/gtest.h>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;
using Codes = std::vector<ErrorCode>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;
constexpr PeerId kP2 = GatewayUnderTest::kP2, kD2 = GatewayUnderTest::kD2;

Load load(uint32_t blocks_free, uint32_t running = 0, uint32_t queued_tokens = 0) {
  return {blocks_free, running, queued_tokens};
}

TEST(GatewayQueue, PrefillAndReserveLeaveTogetherAndNameEachOther) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive(20, 4);
  ASSERT_EQ(test.all<Prefill>(kP).size(), 1u);
  ASSERT_EQ(test.all<Reserve>(kD).size(), 1u);
  const Prefill prefill = test.all<Prefill>(kP)[0];
  const Reserve reserve = test.all<Reserve>(kD)[0];
  EXPECT_EQ(prefill.work, reserve.work);
  EXPECT_EQ(prefill.work.attempt.request, request);
  EXPECT_EQ(prefill.work.attempt.transfer.boot, BootId{77});
  EXPECT_EQ(prefill.work.stop_tokens, std::vector<TokenId>{2});
  EXPECT_EQ(prefill.work.sampling, (SamplingParams{.temperature = 0.5f, .seed = 7, .top_k = 3}));
  EXPECT_EQ(prefill.decode, GatewayUnderTest::boot_of(kD));
  EXPECT_EQ(reserve.prefill, GatewayUnderTest::boot_of(kP));
}

TEST(GatewayQueue, WaitsForBothRolesAndSaysWhichIsMissing) {
  GatewayUnderTest test;
  EXPECT_EQ(test.gateway.health(test.now).reasons,
            (std::vector<std::string>{"no prefill node is connected", "no decode node is connected"}));
  test.up(kP, Role::kPrefill);
  EXPECT_EQ(test.gateway.health(test.now).reasons, std::vector<std::string>{"no decode node is connected"});
  EXPECT_EQ(test.gateway.max_model_len(), 512u);
  const RequestId request = test.arrive();
  EXPECT_EQ(test.gateway.counters().queued, 1u);
  EXPECT_TRUE(test.all<Prefill>(kP).empty());
  test.up(kD, Role::kDecode, 64, 300);
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  EXPECT_EQ(test.gateway.max_model_len(), 300u);
  EXPECT_EQ(test.attempt().request, request);
  EXPECT_EQ(test.gateway.counters().running, 1u);
}

TEST(GatewayQueue, WhatOnlyAStalledNodeCouldHoldHoldsUpNobodyElse) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  test.up(kD, Role::kDecode, 64, 512);
  test.up(kD2, Role::kDecode, 2, 512);  // 32 tokens
  test.message(kD, Load{.blocks_free = 64, .stalled_ms = 6000});
  const RequestId large = test.arrive(100, 4);
  EXPECT_EQ(test.errors_of(large), Codes{ErrorCode::kUnavailable});
  EXPECT_NE(test.errors[0].error.detail.find("decode 2 has made no step for 6 s"), std::string::npos)
      << test.errors[0].error.detail;
  const RequestId small = test.arrive(20, 4);
  EXPECT_EQ(test.attempt().request, small) << "it has its node";
  test.message(kD, Load{.blocks_free = 64});
  const RequestId another = test.arrive(100, 4);
  EXPECT_EQ(test.attempt().request, another);
}

TEST(GatewayQueue, ARequestWaitsWhileNoNodeOfARoleWorks) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  test.up(kD, Role::kDecode, 64, 512);
  test.message(kD, Load{.blocks_free = 64, .stalled_ms = 6000});
  const RequestId waits = test.arrive(100, 4);
  EXPECT_TRUE(test.errors_of(waits).empty()) << "no decode node works: as if none were there, it waits";
  test.message(kD, Load{.blocks_free = 64});
  EXPECT_EQ(test.attempt().request, waits);
}

TEST(GatewayQueue, EveryWaitIsCountedOnceHoweverItEnds) {
  GatewayUnderTest test({.queue_max = 2});
  const auto waits = [&] { return test.gateway.counters().queue_waits; };
  const auto in_bucket_of = [&](double bound) {
    const auto found = std::ranges::find(kSecondsBuckets, bound);
    return waits().counts[static_cast<size_t>(found - kSecondsBuckets.begin())];
  };
  const RequestId leaves = test.arrive();
  test.advance(2s);
  test.on(ClientGone{leaves});
  EXPECT_EQ(in_bucket_of(2.5), 1u);
  test.arrive();
  test.arrive();
  test.arrive();  // 429: it did not wait
  test.advance(300s);
  EXPECT_EQ(in_bucket_of(300), 2u);
  test.up_pair();
  test.arrive();
  EXPECT_EQ(in_bucket_of(0.001), 1u);
  test.refuse(kD, test.attempt());  // a second dispatch is no second wait
  test.advance(1s);
  EXPECT_EQ(test.all<Prefill>(kP).size(), 2u);
  uint64_t all = 0;
  for (const uint64_t count : waits().counts) all += count;
  EXPECT_EQ(all, 4u);
  EXPECT_DOUBLE_EQ(waits().seconds_sum, 602);
}

TEST(GatewayQueue, WithoutNodesARequestEndsAtTheWaitLimit) {
  GatewayUnderTest test;
  const RequestId request = test.arrive();
  EXPECT_EQ(test.gateway.next_deadline(), test.now + 300s);
  test.advance(300s - 1ns);
  EXPECT_TRUE(test.errors.empty());
  test.advance(1ns);
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kDeadline});
  EXPECT_NE(test.errors[0].error.detail.find(
                "waited in the queue for 300 s, the limit: no prefill node is connected; no decode node is connected"),
            std::string::npos);
  EXPECT_EQ(test.gateway.next_deadline(), kNever);
}

TEST(GatewayQueue, OneMoreThanTheBoundIsRefusedAtOnce) {
  GatewayUnderTest test({.queue_max = 2});
  const RequestId first = test.arrive(), second = test.arrive(), third = test.arrive();
  EXPECT_EQ(test.errors_of(third), Codes{ErrorCode::kQueueFull});
  test.on(ClientGone{first});  // leaves its place
  EXPECT_TRUE(test.errors_of(test.arrive()).empty());
  EXPECT_TRUE(test.errors_of(second).empty());
}

TEST(GatewayQueue, FirstInFirstOutEvenWhenALaterOneWouldFit) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  test.up(kD, Role::kDecode, 4);  // 64 tokens
  test.arrive(40, 4);             // three blocks
  const RequestId large = test.arrive(40, 4), small = test.arrive(4, 4);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
  EXPECT_EQ(test.gateway.counters().queued, 2u);
  test.token(kP, test.attempt(), 0, FinishReason::kStop);
  test.message(kD, load(4));
  const auto reserves = test.all<Reserve>(kD);
  ASSERT_EQ(reserves.size(), 3u);
  EXPECT_EQ(reserves[1].work.attempt.request, large);
  EXPECT_EQ(reserves[2].work.attempt.request, small);
}

TEST(GatewayQueue, WhatWasSentCountsUntilTheNodeAnnouncesIt) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  test.up(kD, Role::kDecode, 8);  // 128 tokens
  test.arrive(60, 4);             // four blocks
  test.arrive(44, 4);             // three
  test.message(kD, load(8, 0));   // was under way before it heard of them
  test.arrive(30, 2);             // two: one block is left
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  test.message(kD, load(3, 2));  // shares a block with its cache
  EXPECT_EQ(test.all<Reserve>(kD).size(), 3u);
}

TEST(GatewayQueue, PlacesOnTheLeastLoadedNodes) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  test.up(kP2, Role::kPrefill);
  test.up(kD, Role::kDecode);
  test.up(kD2, Role::kDecode);
  test.message(kP, load(64, 1, 300));
  test.message(kD, load(10, 5));
  test.arrive();
  EXPECT_EQ(test.all<Prefill>(kP2).size(), 1u);
  EXPECT_EQ(test.all<Reserve>(kD2).size(), 1u);
}

TEST(GatewayQueue, APrefixGoesBackToTheNodesThatHaveItUntilTheyAreGone) {
  GatewayUnderTest test;
  for (const PeerId node : {kP, kP2}) test.up(node, Role::kPrefill);
  for (const PeerId node : {kD, kD2}) test.up(node, Role::kDecode);
  test.token(kP, (test.arrive(200, 4), test.attempt()), 0, FinishReason::kStop);
  test.message(kP, load(64, 1, 100));  // the others have less to do
  test.message(kD, load(60, 1));
  test.arrive(200, 4);  // 192 of them in whole spans
  EXPECT_EQ(test.all<Prefill>(kP).size(), 2u);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  test.message(kP, load(64, 1, 193));  // more than it saves
  test.arrive(200, 4);
  EXPECT_EQ(test.all<Prefill>(kP2).size(), 1u);
  test.on(PeerGone{kD, "killed"});
  const size_t before = test.all<Reserve>(kD2).size();
  test.arrive(200, 4);
  EXPECT_EQ(test.all<Reserve>(kD2).size(), before + 1);
}

TEST(GatewayQueue, NoSpaceGoesBackToTheHeadWithTheNextEpoch) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId first = test.arrive();
  const Attempt attempt = test.attempt();
  test.up(kD2, Role::kDecode, 32);
  test.refuse(kD, attempt);
  EXPECT_EQ(test.all<Cancel>(kP), std::vector<Cancel>{{attempt}});
  EXPECT_TRUE(test.all<Cancel>(kD).empty());     // it holds nothing
  ASSERT_EQ(test.all<Reserve>(kD2).size(), 1u);  // the other one, for kD is full
  const Attempt second = test.all<Reserve>(kD2)[0].work.attempt;
  EXPECT_EQ(second.request, first);
  EXPECT_EQ(static_cast<uint32_t>(second.epoch), static_cast<uint32_t>(attempt.epoch) + 1);
  EXPECT_NE(second.transfer, attempt.transfer);
  test.token(kP, attempt, 0);  // of the fenced epoch
  EXPECT_TRUE(test.tokens.empty());
  test.refuse(kP, attempt);  // so is this
  EXPECT_EQ(test.gateway.counters().running, 1u);
}

// P is quicker than D's word, and the client has the token.
TEST(GatewayQueue, ARefusalBehindTheFirstTokenGoesBackTooAndTheTokenIsSaidOnce) {
  GatewayUnderTest test;
  test.up_pair();
  test.up(kD2, Role::kDecode);
  const RequestId request = test.arrive();
  const Attempt first = test.attempt();
  test.token(kP, first, 0);
  test.refuse(kD, first);
  EXPECT_TRUE(test.errors.empty());
  const Attempt second = test.attempt();
  ASSERT_NE(second, first);
  test.token(kP, second, 0);
  for (uint32_t index = 1; index < 4; ++index)
    test.token(kD2, second, index, index == 3 ? FinishReason::kLength : FinishReason::kNone);
  EXPECT_EQ(test.streamed(request), (std::vector<TokenId>{100, 101, 102, 103}));
  ASSERT_EQ(test.ends.size(), 1u);
  EXPECT_EQ(test.ends[0].waterfall.output_tokens, 4u);
  EXPECT_EQ(test.gateway.counters().output_tokens, 4u);
  EXPECT_EQ(test.gateway.counters().prompt_tokens, 20u);
}

TEST(GatewayQueue, AnotherFirstTokenOfASecondAttemptIsAnErrorAndNeverAText) {
  GatewayUnderTest test;
  test.up_pair();
  test.up(kD2, Role::kDecode);
  const RequestId request = test.arrive();
  test.token(kP, test.attempt(), 0);
  test.refuse(kD, test.attempt());
  Token other;
  other.attempt = test.attempt();
  other.token = 99;
  test.message(kP, other);
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kInternal});
  EXPECT_EQ(test.streamed(request), std::vector<TokenId>{100});
}

TEST(GatewayQueue, ThePromptThatYieldedDidNotWaitMeanwhile) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive(400, 4);
  for (uint32_t left = 400; left > 0; left -= 25) {  // 320 s, more than the limit of the queue
    test.message(kP, Load{.blocks_free = 32, .running_sequences = 1, .queued_prompt_tokens = left});
    test.advance(20s);
  }
  test.message(kD, Load{.blocks_free = 0});
  test.refuse(kP, test.attempt());
  test.advance(200s);
  EXPECT_TRUE(test.errors.empty());
  test.advance(100s);
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kDeadline});
}

TEST(GatewayQueue, ANodeThatRefusedIsAskedAgainAfterAPauseOrWithMoreRoom) {
  GatewayUnderTest test;
  test.up_pair();
  test.arrive();
  test.refuse(kD, test.attempt());
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
  EXPECT_EQ(test.gateway.next_deadline(), test.now + 100ms);
  test.advance(100ms);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  test.refuse(kD, test.attempt());
  test.message(kD, load(60, 3));
  test.message(kD, load(60, 4));
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  test.message(kD, load(60, 3));
  EXPECT_EQ(test.all<Reserve>(kD).size(), 3u);
}

TEST(GatewayQueue, AnEndedPauseIsNoDeadlineAnyMore) {
  GatewayUnderTest test;
  test.up_pair();
  test.arrive();
  test.refuse(kD, test.attempt());
  test.message(kP, load(0));
  test.advance(100ms);
  EXPECT_EQ(test.gateway.counters().queued, 1u);
  EXPECT_GT(test.gateway.next_deadline(), test.now);
}

TEST(GatewayQueue, RefusalsAreBounded) {
  GatewayUnderTest test({.attempts_max = 3});
  test.up_pair();
  const RequestId request = test.arrive();
  for (int attempt = 0; attempt < 3; ++attempt) {
    EXPECT_TRUE(test.errors.empty());
    test.refuse(kP, test.attempt());
    test.advance(100ms * (1 << attempt));
  }
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kNoSpace});
  EXPECT_EQ(test.all<Prefill>(kP).size(), 3u);
  EXPECT_EQ(test.all<Cancel>(kD).size(), 3u);
}

TEST(GatewayQueue, WhatCouldNeverFitIsRefusedAtOnce) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill, 64, 512);
  test.up(kD, Role::kDecode, 8, 512);  // 128 tokens of memory
  EXPECT_EQ(test.errors_of(test.arrive(500, 13)), Codes{ErrorCode::kTooLong});
  EXPECT_EQ(test.errors_of(test.arrive(100, 29)), Codes{ErrorCode::kTooLong});
  EXPECT_TRUE(test.errors_of(test.arrive(100, 28)).empty());
  EXPECT_EQ(test.errors_of(test.arrive(UINT16_MAX, UINT32_MAX)), Codes{ErrorCode::kTooLong});
}

TEST(GatewayQueue, WhatNoLongerFitsAnyNodeDoesNotBlockTheQueue) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  const RequestId large = test.arrive(200, 4), small = test.arrive(20, 4);
  test.up(kD, Role::kDecode, 4);
  EXPECT_EQ(test.errors_of(large), Codes{ErrorCode::kTooLong});
  EXPECT_EQ(test.attempt().request, small);
}

TEST(GatewayQueue, EveryPrefillNodeLearnsOfEveryDecodeNode) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  test.up(kD, Role::kDecode);
  test.up(kD2, Role::kDecode);
  test.up(kP2, Role::kPrefill);
  const std::vector<PeerInfo> both = {{GatewayUnderTest::boot_of(kD), "ipc://decode 2"},
                                      {GatewayUnderTest::boot_of(kD2), "ipc://decode 4"}};
  EXPECT_EQ(test.all<PeerInfo>(kP), both);
  EXPECT_EQ(test.all<PeerInfo>(kP2), both);
  EXPECT_TRUE(test.all<PeerInfo>(kD).empty());
}

TEST(GatewayQueue, AHelloThatNothingCouldBePlacedByIsRefused) {
  for (uint32_t Hello::*const size : {&Hello::blocks_total, &Hello::sequences_max, &Hello::max_model_len,
                                      &Hello::block_tokens, &Hello::step_tokens}) {
    GatewayUnderTest test;
    test.up_pair();
    Hello none = GatewayUnderTest::hello(kD2, Role::kDecode);
    none.*size = 0;
    test.on(PeerUp{kD2, none});
    EXPECT_EQ(test.gateway.counters().decode_nodes, 1u);
    EXPECT_EQ(test.sent.size(), 1u);
    EXPECT_EQ(test.all<HelloRefused>(kD2), std::vector{HelloRefused{"\"decode 4\" announces a size of 0"}});
  }
}

TEST(GatewayQueue, ANodeWithOtherBitsIsRefusedAndTheOthersGoOn) {
  GatewayUnderTest test;
  test.up_pair();
  Hello other = GatewayUnderTest::hello(kD2, Role::kDecode);
  other.canary = 0x11;
  test.on(PeerUp{kD2, other});
  EXPECT_EQ(test.gateway.counters().decode_nodes, 1u);
  ASSERT_EQ(test.all<HelloRefused>(kD2).size(), 1u);
  EXPECT_NE(test.all<HelloRefused>(kD2)[0].reason.find("\"decode 4\" computes other bits than"), std::string::npos);
  EXPECT_TRUE(test.all<PeerInfo>(kP).empty());
  test.arrive();
  EXPECT_EQ(test.all<Prefill>(kP).size(), 1u);
  other.encoding.numerics = NumericsClass{9};  // another class may differ
  test.on(PeerUp{kP2, other});
  EXPECT_EQ(test.gateway.counters().decode_nodes, 2u);
}

TEST(GatewayQueue, ANodeOfAnotherNumericsClassJoinsWithAWarningThatNamesBoth) {
  GatewayUnderTest test;
  test.up_pair();
  EXPECT_EQ(test.gateway.warning_about(kD), "");
  Hello other = GatewayUnderTest::hello(kD2, Role::kDecode);
  other.encoding.numerics = NumericsClass{9};
  test.on(PeerUp{kD2, other});
  EXPECT_EQ(test.gateway.counters().decode_nodes, 2u);
  EXPECT_EQ(test.gateway.warning_about(kD2),
            "\"decode 4\" computes in numerics class 9, \"prefill 1\" in 0: tokens may differ by which node computes; "
            "give both the same --activations and --isa");
  test.on(PeerGone{kD2, "killed"});
  EXPECT_EQ(test.gateway.warning_about(kD2), "") << "unknown, as a node that was refused";
}

TEST(GatewayQueue, ANodeThatStoresKvOtherwiseIsRefusedByName) {
  GatewayUnderTest test;
  test.up_pair();
  Hello other = GatewayUnderTest::hello(kD2, Role::kDecode);
  other.encoding = {.dtype = KvDtype::kInt8, .numerics = NumericsClass{9}};
  test.on(PeerUp{kD2, other});
  EXPECT_EQ(test.gateway.counters().decode_nodes, 1u);
  EXPECT_EQ(test.all<HelloRefused>(kD2),
            std::vector{
                HelloRefused{"\"decode 4\" stores KV as int8, \"prefill 1\" as bf16: give both the same --kv-dtype"}});
}

}  // namespace
}  // namespace spillway
