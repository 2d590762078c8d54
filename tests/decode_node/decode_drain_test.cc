// How a decode node drains, and what it says of a thread that hangs.
#include <gtest/gtest.h>

#include "tests/decode_node/decode_script.h"

namespace spillway::script {
namespace {

TEST(DecodeDrain, FinishesWhatItHasAndLeavesWhenTheGatewayLetsGo) {
  DecodeScript d;
  d.connect();
  d.reserve(128);
  d.on(DrainRequested{});
  EXPECT_EQ(d.loads.back().second, alone({.blocks_free = 61, .running_sequences = 1, .draining = true}, 3, 105));
  d.reserve(64, attempt(2));  // was on its way
  EXPECT_EQ(d.node.requests(), 2u);
  d.land_all();
  d.done(128);
  d.land_all(attempt(2));
  d.done(64, attempt(2));
  d.finish_steps();
  EXPECT_EQ(d.node.requests(), 0u);
  EXPECT_FALSE(d.node.drained()) << "more may be on its way";
  d.from(kPrefillPeer, MayLeave{});
  EXPECT_FALSE(d.node.drained());
  d.from(kGateway, MayLeave{});
  EXPECT_TRUE(d.node.drained());
}

TEST(DecodeDrain, WaitsForEachGatewayThatIsConnected) {
  DecodeScript d;
  d.connect();
  d.on(PeerUp{PeerId{50}, hello(Role::kGateway, BootId{51})});
  d.on(DrainRequested{});
  d.from(kGateway, MayLeave{});
  EXPECT_FALSE(d.node.drained());
  d.on(PeerGone{PeerId{50}, "killed"});
  EXPECT_TRUE(d.node.drained());
}

TEST(DecodeStall, AStepThatDoesNotEndIsAnnouncedEachSecondAndTakenBack) {
  DecodeScript d;
  d.connect();
  d.reserve(128);
  d.land_all();
  d.done(128);
  ASSERT_TRUE(d.step);
  const auto look = [&](Duration later) {
    d.now += later;
    d.on(BulkLost{kNobody});  // any event, as a turn of the loop
    return d.loads.back().second.stalled_ms;
  };
  EXPECT_EQ(look(std::chrono::milliseconds(4900)), 0u);
  EXPECT_EQ(d.node.next_deadline() - d.now, std::chrono::milliseconds(100));
  EXPECT_EQ(look(std::chrono::milliseconds(100)), 5000u);
  EXPECT_EQ(look(std::chrono::milliseconds(2500)), 7000u);
  d.finish_step();
  EXPECT_EQ(d.loads.back().second.stalled_ms, 0u);
}

// Its blocks never come, and P has given up: the close is what is waited for.
TEST(DecodeStall, ATransferThreadThatAnswersNothingIsAnnouncedAndTakenBack) {
  DecodeScript d;
  d.connect();
  d.reserve(128);
  const auto look = [&](Duration later) {
    d.now += later;
    d.on(LayerDone{StepId{999}, 0});  // any event, as a turn of the loop
    return d.loads.back().second.transfer_stalled_ms;
  };
  EXPECT_EQ(look(std::chrono::milliseconds(900)), 0u);
  EXPECT_FALSE(d.probed);
  EXPECT_EQ(look(std::chrono::milliseconds(100)), 0u);
  EXPECT_TRUE(d.probed);
  EXPECT_EQ(look(std::chrono::milliseconds(3900)), 0u);
  d.from(kPrefillPeer, Failed{attempt(), ErrorCode::kPeerLost, "not answered"});
  EXPECT_EQ(d.node.requests(), 0u);
  EXPECT_EQ(look(std::chrono::milliseconds(100)), 5000u);
  EXPECT_EQ(d.loads.back().second.stalled_ms, 0u);  // no step is
  EXPECT_EQ(look(std::chrono::milliseconds(2500)), 7000u);
  d.answer_closes();
  EXPECT_EQ(d.loads.back().second.transfer_stalled_ms, 0u);
  EXPECT_TRUE(d.empty());
  EXPECT_EQ(d.node.next_deadline(), kNever);
}

}  // namespace
}  // namespace spillway::script
