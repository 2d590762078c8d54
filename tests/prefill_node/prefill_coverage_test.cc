#include <gtest/gtest.h>

#include <vector>

#include "tests/prefill_node/prefill_states.h"

namespace spillway::script {
namespace {

// Every message from every process, about the attempt and its neighbours, and what compute and transfer may report.
std::vector<PrefillEvent> every_event(uint32_t prompt) {
  std::vector<PrefillEvent> events;
  for (const Attempt& about : attempts_around(attempt())) {
    for (const Message& message : every_message(about, prompt)) {
      for (const PeerId peer : {kGateway, kDecodePeer, kStranger, kNobody})
        events.push_back(PeerMessage{peer, message});
    }
  }
  for (const PeerId peer : {kGateway, kDecodePeer, kStranger, kNobody}) {
    events.push_back(PeerGone{peer, "killed"});
    events.push_back(BulkReady{peer});
    events.push_back(BulkLost{peer});
  }
  events.push_back(PeerUp{kDecodePeer, hello(Role::kDecode, kDecodeBoot)});
  events.push_back(PeerUp{PeerId{60}, hello(Role::kPrefill, kPrefillBoot)});
  events.push_back(LayerDone{StepId{1u << 20}, 0});
  events.push_back(DrainRequested{});
  events.push_back(StepDone{StepId{1u << 20}, {}, kMs});
  events.push_back(PartsSent{SendId{1u << 20}, TransferStatus::kOk});
  for (const TransferStatus status : {TransferStatus::kRefused, TransferStatus::kPeerLost}) {
    events.push_back(PartsSent{SendId{0}, status});
  }
  return events;
}

TEST(PrefillCoverage, NoEventInAnyStateBreaksConservationAndTimeEndsEverything) {
  size_t combinations = 0;
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    const std::vector<PrefillEvent> events = every_event(state.prompt);
    for (size_t which = 0; which < events.size(); ++which) {
      SCOPED_TRACE(which);
      PrefillScript p;
      state.reach(p);
      p.on(events[which]);  // checks conservation
      if (const auto* answer = std::get_if<PartsSent>(&events[which])) {
        std::erase_if(p.sends, [&](const SendParts& job) { return job.send == answer->send; });
      }
      p.on(events[which]);
      p.pass(std::chrono::minutes(1));
      ASSERT_TRUE(p.empty());
      ASSERT_EQ(p.node.next_deadline(), kNever);
      ++combinations;
    }
  }
  RecordProperty("combinations", static_cast<int>(combinations));
  EXPECT_GT(combinations, prefill_states().size() * 14u);  // more than one of each message in each state
}

TEST(PrefillCoverage, StrangersMoveNothing) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    for (const PeerId stranger : {kStranger, kNobody}) {
      PrefillScript p;
      state.reach(p);
      p.forget_messages();
      const uint32_t requests = p.node.requests();
      const KvCacheCounts before = p.cache.counts();
      const size_t parts = p.parts.size();
      for (const Message& message : every_message(attempt(), state.prompt)) {
        if (std::holds_alternative<Failed>(message) || std::holds_alternative<Grant>(message)) {
          if (!state.live && stranger == kStranger) continue;  // a decode node may speak before the Prefill came
        }
        p.from(stranger, message);
      }
      EXPECT_EQ(p.node.requests(), requests);
      EXPECT_EQ(p.cache.counts().held, before.held);
      EXPECT_EQ(p.parts.size(), parts);
      EXPECT_TRUE(p.messages.empty());
    }
  }
}

TEST(PrefillCoverage, TheSameEventsGiveTheSameEffects) {
  const auto run = [] {
    PrefillScript p;
    p.connect();
    p.prefill(300, attempt(1));
    p.prefill(90, attempt(2));
    p.from(kDecodePeer, Grant{attempt(2), 0});
    p.from(kDecodePeer, Grant{attempt(1), 2});
    p.finish_steps();
    p.answer_sends();
    p.pass(std::chrono::seconds(30));
    std::vector<std::pair<PeerId, size_t>> trace;
    for (const SendMessage& one : p.messages) trace.emplace_back(one.to, one.message.index());
    for (const SendParts& one : p.parts)
      trace.emplace_back(one.to, size_t{one.block_index} * kLayers + one.layers.first);
    return trace;
  };
  EXPECT_EQ(run(), run());
}

}  // namespace
}  // namespace spillway::script
