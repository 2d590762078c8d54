// How a prefill node drains, and what it says of a step that hangs.
#include <gtest/gtest.h>

#include "tests/prefill_node/prefill_script.h"

namespace spillway::script {
namespace {

TEST(PrefillDrain, HoldsUntilCommittedAndLeavesWhenTheGatewayLetsGo) {
  PrefillScript p;
  p.connect();
  p.prefill(200);
  p.on(DrainRequested{});
  EXPECT_TRUE(p.loads.back().second.draining);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_steps();
  p.from(kGateway, MayLeave{});
  EXPECT_FALSE(p.node.drained()) << "the decode node may lack blocks";
  p.from(kDecodePeer, Committed{attempt()});
  EXPECT_TRUE(p.node.drained());
}

TEST(PrefillStall, ALayerIsASignOfLife) {
  PrefillScript p;
  p.connect();
  p.prefill(200);
  ASSERT_TRUE(p.step);
  const auto look = [&](Duration later) {
    p.now += later;
    p.on(BulkLost{kNobody});  // any event, as a turn of the loop
    return p.loads.back().second.stalled_ms;
  };
  EXPECT_EQ(look(std::chrono::seconds(4)), 0u);
  p.layer_done(0);
  EXPECT_EQ(look(std::chrono::seconds(4)), 0u);
  EXPECT_EQ(look(std::chrono::seconds(2)), 6000u);
  p.layer_done(1);
  EXPECT_EQ(p.loads.back().second.stalled_ms, 0u);
}

}  // namespace
}  // namespace spillway::script
