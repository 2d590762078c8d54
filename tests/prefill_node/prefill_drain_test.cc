// How a prefill node drains or yields, and what it says of a thread that hangs.
#include <gtest/gtest.h>

#include "tests/prefill_node/prefill_states.h"

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

TEST(PrefillStall, ATransferThreadThatAnswersNothingIsAnnouncedAndTakenBack) {
  PrefillScript p;
  p.connect();
  p.prefill(128);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_steps();
  ASSERT_FALSE(p.sends.empty());
  const auto look = [&](Duration later) {
    p.now += later;
    p.on(LayerDone{StepId{999}, 0});  // any event, as a turn of the loop
    return p.loads.back().second.transfer_stalled_ms;
  };
  EXPECT_EQ(look(std::chrono::seconds(1)), 0u);
  EXPECT_TRUE(p.probed);
  p.from(kDecodePeer, Committed{attempt()});  // nothing is left but the thread's answers
  EXPECT_EQ(look(std::chrono::seconds(4)), 5000u);
  EXPECT_EQ(p.loads.back().second.stalled_ms, 0u);
  p.answer_sends();
  EXPECT_EQ(p.loads.back().second.transfer_stalled_ms, 0u);
  EXPECT_EQ(p.node.next_deadline(), kNever);
}

TEST(PrefillYield, GivesUpWhatHasNoTokenOutAndNothingElse) {
  size_t given_up = 0;
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    const uint32_t requests = p.node.requests();
    const bool computing = p.node.holds(attempt().request) && p.engine.open_sequences() == requests;
    p.forget_messages();
    p.from(kGateway, Yield{attempt()});  // only its own decode node may ask
    p.from(kStranger, Yield{attempt()});
    EXPECT_EQ(p.node.requests(), requests);
    EXPECT_TRUE(p.messages.empty());
    p.from(kDecodePeer, Yield{attempt()});
    const auto told = p.sent<Failed>();
    if (!computing) {
      EXPECT_EQ(p.node.requests(), requests);
      EXPECT_TRUE(told.empty());
      continue;
    }
    ++given_up;
    EXPECT_EQ(p.node.requests(), requests - 1);
    ASSERT_GE(told.size(), 1u);
    for (const auto& [to, failed] : told) EXPECT_EQ(failed.code, ErrorCode::kNoSpace);
    EXPECT_EQ(told[0].first, kGateway);
  }
  EXPECT_GE(given_up, 2u);
}

}  // namespace
}  // namespace spillway::script
