// Decode nodes that hold less than a whole answer needs, and preempt.
#include <gtest/gtest.h>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;
using Codes = std::vector<ErrorCode>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;

Load load(uint32_t running, uint32_t preempted, uint64_t preemptions, uint32_t queued_tokens = 0,
          uint64_t recomputed_tokens = 0) {
  return {64, running, queued_tokens, preempted, preemptions, recomputed_tokens};
}

// Two requests that decode on one node, each with tokens 0 and 1 out.
struct TwoThatDecode {
  TwoThatDecode() {
    test.up_pair();
    for (RequestId* const one : {&first, &second}) {
      *one = test.arrive(20, 400);
      test.token(kP, test.attempt(), 0);
      test.token(kD, test.attempt(), 1);
    }
    const auto sent = test.all<Reserve>(kD);
    of_first = sent[0].work.attempt;
    of_second = sent[1].work.attempt;
  }
  GatewayUnderTest test;
  RequestId first, second;
  Attempt of_first, of_second;
};

TEST(GatewayPreemption, PlacementCountsThePromptAndTheMargin) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill);
  Hello hello = GatewayUnderTest::hello(kD, Role::kDecode, 6);
  hello.growth_margin = 16;
  test.on(PeerUp{kD, hello});
  test.arrive(20, 60);  // five blocks in all, three at first
  test.arrive(20, 60);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  test.arrive(4, 4);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  // What could never end is refused as before.
  EXPECT_EQ(test.errors_of(test.arrive(20, 77)), Codes{ErrorCode::kTooLong});
}

TEST(GatewayPreemption, ANodeWithPreemptedSequencesTakesNothing) {
  GatewayUnderTest test;
  test.up_pair();
  test.message(kD, load(3, 1, 1));
  test.arrive();
  EXPECT_TRUE(test.all<Reserve>(kD).empty());
  test.message(kD, load(3, 0, 1));
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
}

TEST(GatewayPreemption, ASequenceThatWaitsForOthersIsNotFailedWhileTheyMove) {
  TwoThatDecode both;
  GatewayUnderTest& test = both.test;
  test.message(kD, load(2, 1, 1, 21));
  uint32_t index = 2;
  for (int turn = 0; turn < 10; ++turn) {
    test.advance(25s);
    test.token(kD, both.of_first, index++);
  }
  EXPECT_TRUE(test.errors.empty());
  for (uint32_t left = 20; left > 10; left -= 5) {  // it is computed again, long
    test.message(kD, load(2, 1, 1, left));
    test.advance(20s);
  }
  EXPECT_TRUE(test.errors.empty());
  test.token(kD, both.of_second, 2);
  EXPECT_EQ(test.streamed(both.second).size(), 3u);
}

TEST(GatewayPreemption, WithoutAnyMoveOfItsNodeItIsFailedAtTheLimit) {
  TwoThatDecode both;
  both.test.message(kD, load(2, 1, 1, 21));
  both.test.advance(30s - 1ns);
  EXPECT_TRUE(both.test.errors.empty());
  both.test.advance(1ns);
  EXPECT_EQ(both.test.errors_of(both.second), Codes{ErrorCode::kDeadline});
}

TEST(GatewayPreemption, WhereNothingIsPreemptedSilenceIsNotExcusedByOthers) {
  TwoThatDecode both;
  both.test.message(kD, load(2, 0, 0));
  both.test.advance(20s);
  both.test.token(kD, both.of_first, 2);
  both.test.advance(10s);
  EXPECT_EQ(both.test.errors_of(both.second), Codes{ErrorCode::kDeadline});
  EXPECT_TRUE(both.test.errors_of(both.first).empty());
}

TEST(GatewayPreemption, TheWaitHasAnEndThatNamesItsCause) {
  TwoThatDecode both;
  GatewayUnderTest& test = both.test;
  test.message(kD, load(2, 1, 1, 21));
  for (uint32_t index = 2; index < 17; ++index) {
    EXPECT_TRUE(test.errors.empty()) << index;
    test.advance(20s);
    test.token(kD, both.of_first, index);
  }
  EXPECT_EQ(test.errors_of(both.second), Codes{ErrorCode::kDeadline});
  EXPECT_NE(test.errors.at(0).error.detail.find(
                "decode 2 found no KV blocks to go on with this request for 300 s, the limit"),
            std::string::npos)
      << test.errors.at(0).error.detail;
  EXPECT_TRUE(test.errors_of(both.first).empty());
}

TEST(GatewayPreemption, CountersAddWhatNodesDidWhileTheyWereConnected) {
  GatewayUnderTest test;
  test.announces = false;
  test.up_pair();
  const auto counts = [&] { return test.gateway.counters().preemption; };
  test.message(kD, load(0, 0, 100, 0, 5000));  // before this gateway came
  EXPECT_EQ(counts().preemptions, 0u);
  test.message(kD, load(1, 1, 103, 0, 5010));
  EXPECT_EQ(counts().preemptions, 3u);
  EXPECT_EQ(counts().recomputed_tokens, 10u);
  test.on(PeerGone{kD, "killed"});
  test.up(kD, Role::kDecode);
  test.message(kD, load(0, 0, 0));  // its successor
  test.message(kD, load(0, 0, 1, 0, 7));
  EXPECT_EQ(counts().preemptions, 4u);
  EXPECT_EQ(counts().recomputed_tokens, 17u);
  test.message(kD, load(0, 0, 0));  // nonsense moves no counter back
  EXPECT_EQ(counts().preemptions, 4u);
}

}  // namespace
}  // namespace spillway
