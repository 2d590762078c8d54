// What the head of the queue asks of nodes whose room is others' to promise.
#include "gateway/room_wants.h"

#include <gtest/gtest.h>

#include "tests/gateway/gateway_under_test.h"
#include "transfer/credit_shares.h"

namespace spillway {
namespace {

using Said = std::vector<std::pair<PeerId, Want>>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD, kD2 = GatewayUnderTest::kD2;
constexpr TimePoint kStart{std::chrono::hours(1)};

TEST(RoomWants, SaysWhatChangesAndAgainWhileItStands) {
  const RequestId head{BootId{1}, 1}, other{BootId{1}, 2};
  RoomWants wants;
  const std::vector<RoomWanted> both{{kD, 5}, {kD2, 6}}, one{{kD2, 6}};
  EXPECT_EQ(wants.set(head, both, kStart), (Said{{kD, {5}}, {kD2, {6}}}));
  EXPECT_EQ(wants.set(head, both, kStart), Said{});
  EXPECT_EQ(wants.asked_for(head), (std::vector{kD, kD2}));
  EXPECT_TRUE(wants.asked_for(other).empty());
  EXPECT_EQ(wants.next_deadline(), kStart + kWantRenewal);
  EXPECT_EQ(wants.set(head, both, kStart + kWantRenewal), (Said{{kD, {5}}, {kD2, {6}}}));
  EXPECT_EQ(wants.set(head, one, kStart + kWantRenewal), (Said{{kD, {0}}}));
  EXPECT_EQ(wants.set(other, one, kStart + kWantRenewal), (Said{{kD2, {0}}, {kD2, {6}}}))
      << "its own place in the line";
  wants.forget(kD2);
  EXPECT_EQ(wants.set(std::nullopt, {}, kStart + kWantRenewal), Said{});
  EXPECT_EQ(wants.next_deadline(), kNever);
}

// kD has 64 blocks, of which so many are this gateway's.
void tell_share(GatewayUnderTest& test, PeerId node, uint32_t blocks, uint32_t free = 64, uint32_t sequences = 8) {
  Load load{.blocks_free = free, .blocks_share = blocks, .sequences_share = sequences};
  load.newest_transfer = test.newest_transfer(node);
  test.message(node, load);
}

TEST(GatewayWants, NothingIsPromisedBeforeAShareIsTold) {
  GatewayUnderTest test;
  test.announces = false;
  test.up_pair();
  test.arrive();
  EXPECT_TRUE(test.sent.empty());
  EXPECT_EQ(test.gateway.counters().prefill_nodes, 0u);
  tell_share(test, kP, 64);
  EXPECT_EQ(test.gateway.counters().prefill_nodes, 1u);
  EXPECT_TRUE(test.sent.empty());
  tell_share(test, kD, 1);
  EXPECT_TRUE(test.all<Reserve>(kD).empty());
  EXPECT_EQ(test.all<Want>(kD), std::vector<Want>{{2}});
  tell_share(test, kD, 2);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
}

TEST(GatewayWants, PromisesNoMoreThanItsShareAndAsksForMore) {
  GatewayUnderTest test;
  test.up_pair();
  tell_share(test, kD, 5);
  test.arrive(44, 4);  // three blocks
  test.arrive(44, 4);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
  EXPECT_EQ(test.all<Want>(kD), std::vector<Want>{{3}});
  EXPECT_EQ(test.gateway.next_deadline(), test.now + kWantRenewal);
  test.advance(kWantRenewal);
  EXPECT_EQ(test.all<Want>(kD), (std::vector<Want>{{3}, {3}})) << "a node forgets";
  tell_share(test, kD, 3, 61);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u);
  EXPECT_EQ(test.all<Want>(kD).size(), 2u) << "the Reserve ends it";
  EXPECT_TRUE(test.all<Want>(kP).empty());
}

TEST(GatewayWants, ASequenceOfOthersIsAskedForToo) {
  GatewayUnderTest test;
  test.up_pair();
  tell_share(test, kD, 32, 64, 0);
  test.arrive(20, 4);
  EXPECT_EQ(test.all<Want>(kD), std::vector<Want>{{2}});
  tell_share(test, kD, 32, 64, 1);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
}

TEST(GatewayWants, AWantIsWithdrawnWhenItsRequestIsGoneOrPlacedElsewhere) {
  GatewayUnderTest test;
  test.up_pair();
  tell_share(test, kD, 1);
  const RequestId request = test.arrive(20, 4);
  test.on(ClientGone{request});
  EXPECT_EQ(test.all<Want>(kD), (std::vector<Want>{{2}, {0}}));
  test.arrive(20, 4);
  test.up(kD2, Role::kDecode);
  EXPECT_EQ(test.all<Reserve>(kD2).size(), 1u);
  EXPECT_EQ(test.all<Want>(kD), (std::vector<Want>{{2}, {0}, {2}, {0}}));
  EXPECT_EQ(test.gateway.next_deadline(), test.now + std::chrono::seconds(30));  // of the request alone
}

TEST(GatewayWants, APrefillNodeIsAskedOnlyWhileADecodeNodeHasRoom) {
  GatewayUnderTest test;
  test.up_pair();
  tell_share(test, kP, 1);
  tell_share(test, kD, 1);
  test.arrive(20, 4);
  EXPECT_TRUE(test.all<Want>(kP).empty());
  EXPECT_EQ(test.all<Want>(kD), std::vector<Want>{{2}});
  tell_share(test, kD, 2);
  EXPECT_EQ(test.all<Want>(kP), std::vector<Want>{{2}});
  EXPECT_EQ(test.all<Want>(kD), std::vector<Want>{{2}}) << "it goes on to hold what it gave";
  tell_share(test, kD, 1);
  EXPECT_EQ(test.all<Want>(kP), (std::vector<Want>{{2}, {0}}));
  tell_share(test, kD, 2);
  tell_share(test, kP, 2);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 1u);
}

TEST(GatewayWants, ARefusedRequestAsksWithItsNextBreath) {
  GatewayUnderTest test;
  test.up_pair();
  tell_share(test, kD, 2);
  test.arrive(20, 4);
  tell_share(test, kD, 0, 0);  // others were faster
  test.refuse(kD, test.attempt());
  EXPECT_EQ(test.all<Want>(kD), std::vector<Want>{{2}});
  tell_share(test, kD, 2, 2);
  EXPECT_EQ(test.all<Reserve>(kD).size(), 2u) << "more room ends the pause";
}

}  // namespace
}  // namespace spillway
