// Draining, of the gateway and of a node; stalled nodes; what health says of them.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD, kP2 = GatewayUnderTest::kP2,
                 kD2 = GatewayUnderTest::kD2;

Load draining() { return {.blocks_free = 64, .running_sequences = 0, .queued_prompt_tokens = 0, .draining = true}; }
Load stalled(uint32_t for_ms) {
  return {.blocks_free = 64, .running_sequences = 3, .queued_prompt_tokens = 0, .stalled_ms = for_ms};
}

void finish(GatewayUnderTest& test) {
  const Attempt attempt = test.attempt();
  test.token(kP, attempt, 0);
  for (uint32_t index = 1; index < 4; ++index)
    test.token(kD, attempt, index, index == 3 ? FinishReason::kLength : FinishReason::kNone);
}

TEST(GatewayDrain, FinishesWhatItHasAndRefusesWhatComes) {
  GatewayUnderTest test({.running_max = 1});
  test.up_pair();
  test.arrive();
  test.arrive();  // waits
  test.on(DrainRequested{});
  EXPECT_FALSE(test.gateway.drained());
  EXPECT_TRUE(test.gateway.health(test.now).draining);
  EXPECT_EQ(test.gateway.health(test.now).reasons.at(0),
            "the gateway is draining: 1 requests are under way and 1 wait");
  const RequestId late = test.arrive();
  EXPECT_EQ(test.errors_of(late), std::vector<ErrorCode>{ErrorCode::kUnavailable});
  finish(test);
  EXPECT_FALSE(test.gateway.drained());
  finish(test);
  EXPECT_TRUE(test.gateway.drained());
  EXPECT_EQ(test.ends.size(), 2u);
}

TEST(GatewayDrain, ANodeThatDrainsGetsNothingNewAndMayLeaveOnceItsRequestsAreOver) {
  GatewayUnderTest test;
  test.up_pair();
  test.arrive();
  test.message(kD, draining());
  test.message(kP, draining());
  EXPECT_TRUE(test.all<MayLeave>(kD).empty());
  EXPECT_TRUE(test.all<MayLeave>(kP).empty());
  test.token(kP, test.attempt(), 0);
  EXPECT_TRUE(test.all<MayLeave>(kP).empty()) << "until the handover its loss would matter";
  test.token(kD, test.attempt(), 1);
  EXPECT_EQ(test.all<MayLeave>(kP).size(), 1u);
  EXPECT_TRUE(test.all<MayLeave>(kD).empty());
  test.token(kD, test.attempt(), 2);
  test.token(kD, test.attempt(), 3, FinishReason::kLength);
  EXPECT_EQ(test.all<MayLeave>(kD).size(), 1u);
  test.message(kD, draining());
  EXPECT_EQ(test.all<MayLeave>(kD).size(), 1u) << "said once";

  test.arrive();  // there is nobody for it
  EXPECT_EQ(test.gateway.counters().queued, 1u);
  test.up(kP2, Role::kPrefill);
  test.up(kD2, Role::kDecode);
  EXPECT_EQ(test.gateway.counters().running, 1u);
  EXPECT_EQ(test.all<Reserve>(kD2).size(), 1u);
}

TEST(GatewayDrain, ANodeThatLeavesTooEarlyIsNamedInTheError) {
  GatewayUnderTest test;
  test.up_pair();
  const RequestId request = test.arrive();
  test.message(kD, draining());
  test.on(PeerGone{kD, "hung up"});
  ASSERT_EQ(test.errors_of(request), std::vector<ErrorCode>{ErrorCode::kPeerLost});
  EXPECT_EQ(test.errors[0].error.detail, "decode 2 is gone before it had drained: hung up");
}

TEST(GatewayHealth, AStalledNodeMakesItUnreadyOnlyWhereNoOtherServes) {
  GatewayUnderTest test;
  test.up_pair();
  test.message(kD, stalled(8000));
  const std::string says = "decode 2 has made no step for 8 s while 3 sequences are there";
  EXPECT_EQ(test.gateway.health(test.now).reasons, std::vector<std::string>{says});
  const RequestId waits = test.arrive();
  EXPECT_EQ(test.gateway.counters().queued, 1u) << "not placed on it";
  test.up(kD2, Role::kDecode);
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  EXPECT_EQ(test.gateway.health(test.now).degraded, std::vector<std::string>{says});
  ASSERT_EQ(test.all<Reserve>(kD2).size(), 1u);
  EXPECT_EQ(test.all<Reserve>(kD2)[0].work.attempt.request, waits);
  test.message(kD, stalled(0));
  EXPECT_TRUE(test.gateway.health(test.now).degraded.empty());
}

TEST(GatewayHealth, RequestsThatStandStillMakeItUnreadyUntilOneMoves) {
  GatewayUnderTest test({.progress_max = std::chrono::minutes(5)});
  test.up_pair();
  test.advance(std::chrono::minutes(1));
  EXPECT_TRUE(test.gateway.health(test.now).ready()) << "nothing is pending";
  test.arrive();
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  test.advance(std::chrono::seconds(16));
  EXPECT_EQ(test.gateway.health(test.now).reasons,
            std::vector<std::string>{"none of the 1 requests under way came forward for 16 s"});
  test.token(kP, test.attempt(), 0);
  EXPECT_TRUE(test.gateway.health(test.now).ready());
}

TEST(GatewayHealth, ATransferThreadThatHangsIsNamed) {
  GatewayUnderTest test;
  test.up_pair();
  test.message(kD, Load{.blocks_free = 64, .running_sequences = 1, .transfer_stalled_ms = 6000});
  EXPECT_EQ(test.gateway.health(test.now).reasons,
            std::vector<std::string>{"decode 2 has moved no KV blocks for 6 s: its transfer thread does not answer"});
  test.arrive();
  EXPECT_TRUE(test.all<Reserve>(kD).empty());
  test.message(kD, Load{.blocks_free = 64, .running_sequences = 1});
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
}

TEST(GatewayHealth, WhatIsNeverPlacedMakesItUnreadyUnlessNodesMoveForOthers) {
  GatewayUnderTest test;
  test.up_pair();
  const auto full = [&](uint64_t steps) {
    Load load{.blocks_free = 0, .running_sequences = 3};
    load.totals.steps = steps;
    test.message(kD, load);
  };
  full(1);
  test.advance(1h);
  test.arrive();
  EXPECT_TRUE(test.gateway.health(test.now).ready()) << "it just came";
  test.advance(15s - 1ns);
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  test.arrive();  // one more changes nothing
  test.advance(1ns);
  EXPECT_EQ(test.gateway.health(test.now).reasons,
            std::vector<std::string>{"none of the 2 requests that wait was placed for 15 s, and no node moves"});
  full(2);  // of another gateway's requests
  EXPECT_TRUE(test.gateway.health(test.now).ready());
  test.advance(15s);
  EXPECT_FALSE(test.gateway.health(test.now).ready());
  test.message(kD, Load{.blocks_free = 64});
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  EXPECT_TRUE(test.gateway.health(test.now).ready());
}

}  // namespace
}  // namespace spillway
