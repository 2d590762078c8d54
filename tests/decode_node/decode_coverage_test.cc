#include <gtest/gtest.h>

#include <vector>

#include "tests/decode_node/decode_states.h"

namespace spillway::script {
namespace {

// Every message from every process, about the attempt and its neighbours, and what compute and transfer may report.
std::vector<DecodeEvent> every_event() {
  std::vector<DecodeEvent> events;
  for (const Attempt& about : attempts_around(attempt())) {
    for (const Message& message : every_message(about, kStatePrompt)) {
      for (const PeerId peer : {kGateway, kPrefillPeer, kStranger, kNobody})
        events.push_back(PeerMessage{peer, message});
    }
    for (const bool intact : {true, false}) {
      events.push_back(PartsLanded{about.transfer, about.epoch, 1, {3, 2}, intact});
      events.push_back(PartsLanded{about.transfer, about.epoch, 99, {0, kLayers}, intact});
    }
    events.push_back(TransferClosed{about.transfer, Epoch{1}});
  }
  for (const PeerId peer : {kGateway, kPrefillPeer, kStranger, kNobody}) {
    events.push_back(PeerGone{peer, "killed"});
    events.push_back(BulkReady{peer});
    events.push_back(BulkLost{peer});
  }
  events.push_back(PeerUp{kPrefillPeer, hello(Role::kPrefill, kPrefillBoot)});
  events.push_back(PeerUp{PeerId{60}, hello(Role::kDecode, kDecodeBoot)});
  events.push_back(DrainRequested{});
  for (const StepId step : {StepId{1}, StepId{1u << 20}}) events.push_back(LayerDone{step, 0});
  events.push_back(StepDone{StepId{1u << 20}, {}, kMs});
  return events;
}

TEST(DecodeCoverage, NoEventInAnyStateBreaksConservationAndTimeEndsEverything) {
  size_t combinations = 0;
  const std::vector<DecodeEvent> events = every_event();
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    for (size_t which = 0; which < events.size(); ++which) {
      SCOPED_TRACE(which);
      DecodeScript d;
      state.reach(d);
      d.on(events[which]);  // checks conservation
      d.on(events[which]);
      d.pass(std::chrono::minutes(1));
      ASSERT_TRUE(d.empty());
      ASSERT_EQ(d.node.next_deadline(), kNever);
      ++combinations;
    }
  }
  RecordProperty("combinations", static_cast<int>(combinations));
  EXPECT_GT(combinations, decode_states().size() * 14u);  // more than one of each message in each state
}

TEST(DecodeCoverage, StrangersMoveNothing) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    for (const PeerId stranger : {kStranger, kNobody}) {
      DecodeScript d;
      state.reach(d);
      d.forget_messages();
      const uint32_t requests = d.node.requests();
      const uint32_t held = d.cache.counts().held;
      const TimePoint deadline = d.node.next_deadline();
      for (const Message& message : every_message(attempt(), kStatePrompt)) d.from(stranger, message);
      EXPECT_EQ(d.node.requests(), requests);
      EXPECT_EQ(d.cache.counts().held, held);
      EXPECT_EQ(d.node.next_deadline(), deadline);
      EXPECT_TRUE(d.messages.empty());
    }
  }
}

TEST(DecodeCoverage, TheSameEventsGiveTheSameEffects) {
  const auto run = [] {
    DecodeScript d;
    d.connect();
    for (uint64_t request = 1; request <= 4; ++request)
      d.reserve(100 + 30 * static_cast<uint32_t>(request), attempt(request));
    d.land_all(attempt(2));
    d.done(160, attempt(2));
    d.from(kGateway, Cancel{attempt(3)});
    d.pass(std::chrono::seconds(30));
    std::vector<std::pair<PeerId, size_t>> trace;
    for (const SendMessage& one : d.messages) trace.emplace_back(one.to, one.message.index());
    for (const OpenTransfer& job : d.opened) {
      for (const SlotId slot : job.slots) trace.emplace_back(job.from, static_cast<size_t>(slot));
    }
    return trace;
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace spillway::script
