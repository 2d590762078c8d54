#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/prefill_node/prefill_states.h"

namespace spillway::script {
namespace {

TEST(PrefillExit, CancelEndsTheAttemptInEveryStateWithinOneStep) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    p.forget_messages();
    p.from(kGateway, Cancel{attempt()});
    EXPECT_EQ(p.node.requests(), 0u);
    EXPECT_TRUE(p.messages.empty());  // G tells D itself
    if (p.step) p.end_step();
    p.answer_sends();
    EXPECT_TRUE(p.empty());
    p.from(kGateway, Cancel{attempt()});
    p.prefill(state.prompt);  // a late duplicate starts nothing
    EXPECT_TRUE(p.empty());
    EXPECT_EQ(p.node.next_deadline(), kNever);
  }
}

TEST(PrefillExit, AGatewayThatIsGoneEndsItsAttemptsAndTheDecodeNodeIsTold) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    p.forget_messages();
    p.on(PeerGone{kGateway, "killed"});
    EXPECT_EQ(p.node.requests(), 0u);
    const auto failed = p.sent<Failed>();
    ASSERT_EQ(failed.size(), state.live ? 1u : 0u);
    for (const auto& [to, message] : failed) EXPECT_EQ(to, kDecodePeer);
    if (p.step) p.end_step();
    p.answer_sends();
    EXPECT_TRUE(p.empty());
  }
}

TEST(PrefillExit, ADecodeNodeThatIsGoneFailsItsAttemptsAtTheGateway) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    p.forget_messages();
    p.on(PeerGone{kDecodePeer, "killed"});
    EXPECT_EQ(p.node.requests(), 0u);
    const auto failed = p.sent<Failed>();
    ASSERT_EQ(failed.size(), state.live && !state.ended ? 1u : 0u);
    for (const auto& [to, message] : failed) {
      EXPECT_EQ(to, kGateway);
      EXPECT_EQ(message.code, ErrorCode::kPeerLost);
      EXPECT_EQ(message.detail, "a decode node is gone: killed");  // it gave no name
    }
    if (p.step) p.end_step();
    p.answer_sends();
    EXPECT_TRUE(p.empty());
  }
}

TEST(PrefillExit, AnotherProcessThatIsGoneChangesNothing) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    const uint32_t requests = p.node.requests();
    p.forget_messages();
    p.on(PeerGone{kStranger, "killed"});
    EXPECT_EQ(p.node.requests(), requests);
    EXPECT_TRUE(p.messages.empty());
  }
}

TEST(PrefillExit, ABrokenBulkLinkFailsOnlyWhatWasStillStreaming) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    const uint32_t requests = p.node.requests();
    p.forget_messages();
    p.on(BulkLost{kDecodePeer});
    EXPECT_EQ(p.node.requests(), state.streaming ? 0u : requests);
    EXPECT_EQ(p.sent<Failed>().size(), state.streaming ? 2u : 0u);
    p.answer_sends(TransferStatus::kPeerLost);
    p.pass(p.config.hold_max * 2);
    EXPECT_TRUE(p.empty());
  }
}

TEST(PrefillExit, AFailedSendFailsTheAttemptOnceAndAllElseGoesOn) {
  for (const TransferStatus status : {TransferStatus::kPeerLost, TransferStatus::kRefused}) {
    PrefillScript p;
    p.connect();
    p.prefill(200, attempt(1));
    p.prefill(200, attempt(2));
    p.from(kDecodePeer, Grant{attempt(1), 0});
    p.from(kDecodePeer, Grant{attempt(2), 0});
    p.layer_done(0);
    ASSERT_FALSE(p.sends.empty());
    const SendParts failing = p.sends.front();
    p.on(PartsSent{failing.send, status});
    p.sends.pop_front();
    EXPECT_EQ(p.node.requests(), 1u);
    ASSERT_EQ(p.sent<Failed>().size(), 2u);  // G and D
    EXPECT_EQ(p.sent<Failed>()[0].second.attempt.transfer, failing.transfer);
    p.answer_sends();
    p.finish_steps();
    p.answer_sends();
    EXPECT_EQ(p.sent<Failed>().size(), 2u);
    EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
  }
}

// Its control loop lives, so no PeerGone comes.
TEST(PrefillExit, AGrantedAttemptWaitsForItsBulkLinkToTheLimitOnly) {
  PrefillScript p;
  p.connect();  // no link to kStranger
  p.from(kGateway, Prefill{work(attempt(1), 130), kStrangerBoot});
  p.from(kStranger, Grant{attempt(1), 0});
  const TimePoint limit = p.now + p.sender.config().answer_max;
  while (p.node.next_deadline() < limit) {  // Leases
    p.now = p.node.next_deadline();
    p.deadline();
  }
  EXPECT_TRUE(p.sent<Failed>().empty());
  ASSERT_EQ(p.node.next_deadline(), limit);
  p.now = limit;
  p.deadline();
  const auto failed = p.sent<Failed>();
  ASSERT_EQ(failed.size(), 2u);  // to both ends
  EXPECT_NE(failed[0].second.detail.find("no bulk link"), std::string::npos) << failed[0].second.detail;
  while (p.step) p.finish_step();
  EXPECT_EQ(p.node.requests(), 0u);
}

TEST(PrefillExit, ADecodeNodeThatTakesNoPartsLosesItsLinkAtTheLimitAndOthersAreServed) {
  PrefillScript p({.window = 2});
  p.connect();
  p.on(BulkReady{kStranger});
  p.prefill(130, attempt(1));
  p.from(kGateway, Prefill{work(attempt(2), 130), kStrangerBoot});
  p.from(kDecodePeer, Grant{attempt(1), 0});
  p.from(kStranger, Grant{attempt(2), 0});
  const TimePoint sent = p.now;
  while (p.step) p.finish_step();
  const auto answer_other = [&] {
    for (bool any = true; any;) {
      any = false;
      for (auto job = p.sends.begin(); job != p.sends.end() && !any; ++job) {
        if (job->to == kDecodePeer) continue;
        const SendId send = job->send;
        p.sends.erase(job);
        p.on(PartsSent{send, TransferStatus::kOk});
        any = true;
      }
    }
  };
  answer_other();
  EXPECT_TRUE(p.sender.all_sent(attempt(2).transfer));
  p.from(kStranger, Committed{attempt(2)});
  EXPECT_EQ(p.node.requests(), 1u);
  p.forget_messages();
  p.links.clear();

  const TimePoint limit = sent + p.sender.config().answer_max;
  while (p.node.next_deadline() < limit) {  // Leases
    p.now = p.node.next_deadline();
    p.deadline();
  }
  EXPECT_TRUE(p.links.empty());
  EXPECT_TRUE(p.sent<Failed>().empty());
  ASSERT_EQ(p.node.next_deadline(), limit);
  p.now = limit;
  p.deadline();
  ASSERT_EQ(p.links.size(), 1u);
  EXPECT_EQ(std::get<DisconnectBulk>(p.links[0]).peer, kDecodePeer);
  const auto failed = p.sent<Failed>();
  ASSERT_EQ(failed.size(), 2u);
  for (const auto& [to, message] : failed) {
    EXPECT_EQ(message.attempt, attempt(1));
    EXPECT_EQ(message.code, ErrorCode::kPeerLost);
  }
  p.answer_sends(TransferStatus::kPeerLost);
  p.on(BulkLost{kDecodePeer});
  EXPECT_EQ(p.links.size(), 1u);
  p.pass(p.config.bulk_retry);
  ASSERT_EQ(p.links.size(), 2u);  // and the link is tried again
  EXPECT_EQ(std::get<ConnectBulk>(p.links[1]).peer, kDecodePeer);
  EXPECT_EQ(p.sent<Failed>().size(), 2u);
  EXPECT_TRUE(p.empty());
}

TEST(PrefillExit, WithoutACommitItLetsGoAfterHoldMaxAndTellsTheDecodeNodeOnly) {
  PrefillScript p;
  p.connect();
  p.prefill(64);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_steps();
  p.answer_sends();
  const TimePoint sampled = p.now;
  p.pass(p.config.hold_max - kMs);
  EXPECT_EQ(p.node.requests(), 1u);
  EXPECT_EQ(p.node.next_deadline(), sampled + p.config.hold_max);
  p.forget_messages();
  p.pass(2 * kMs);
  EXPECT_TRUE(p.empty());
  ASSERT_EQ(p.sent<Failed>().size(), 1u);
  EXPECT_EQ(p.sent<Failed>()[0].first, kDecodePeer);
  EXPECT_EQ(p.sent<Failed>()[0].second.code, ErrorCode::kDeadline);
}

TEST(PrefillExit, WithoutAGrantTheGatewayHearsOfTheDeadlineToo) {
  PrefillScript p;
  p.connect();
  p.prefill(64);
  p.finish_steps();
  p.forget_messages();
  p.pass(p.config.hold_max);
  EXPECT_TRUE(p.empty());
  ASSERT_EQ(p.sent<Failed>().size(), 2u);
  EXPECT_EQ(p.sent<Failed>()[0].first, kGateway);
  EXPECT_EQ(p.sent<Failed>()[1].first, kDecodePeer);
}

TEST(PrefillExit, AGrantForAnEndedAttemptIsAnsweredSoThatTheDecodeNodeLetsGo) {
  PrefillScript p;
  p.connect();
  p.from(kGateway, Cancel{attempt()});  // overtook Prefill and Grant
  p.from(kDecodePeer, Grant{attempt(), 0});
  ASSERT_EQ(p.sent<Failed>().size(), 1u);
  EXPECT_EQ(p.sent<Failed>()[0].first, kDecodePeer);
  EXPECT_EQ(p.sent<Failed>()[0].second.attempt, attempt());
}

TEST(PrefillExit, ARefusalThatOvertakesThePrefillKeepsItFromStarting) {
  PrefillScript p;
  p.connect();
  p.from(kDecodePeer, Failed{attempt(), ErrorCode::kNoSpace, "full"});
  p.prefill(64);
  EXPECT_TRUE(p.empty());
  p.prefill(64, attempt(1, 6));  // the next placement is another attempt
  EXPECT_EQ(p.node.requests(), 1u);
}

TEST(PrefillExit, ANewerEpochFencesTheOlder) {
  for (const PrefillState& state : prefill_states()) {
    SCOPED_TRACE(state.name);
    PrefillScript p;
    state.reach(p);
    const Attempt newer = attempt(1, 6);
    p.prefill(130, newer);
    EXPECT_EQ(p.node.requests(), 1u);
    p.prefill(state.prompt);  // the older again
    p.from(kDecodePeer, Committed{attempt()});
    p.from(kGateway, Cancel{attempt()});
    EXPECT_EQ(p.node.requests(), 1u);
    p.answer_sends();
    p.forget_messages();
    p.from(kDecodePeer, Grant{newer, 0});
    p.finish_steps();
    p.answer_sends();
    ASSERT_EQ(p.sent<Token>().size(), 1u);
    EXPECT_EQ(p.sent<Token>()[0].second.attempt, newer);
    EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
  }
}

TEST(PrefillExit, LogitsThatAreNotFiniteFailThatRequestOnly) {
  PrefillScript p;
  p.connect();
  p.prefill(64, attempt(1));
  p.prefill(64, attempt(2));
  p.finish_step(7, false);
  ASSERT_EQ(p.sent<Failed>().size(), 2u);
  EXPECT_EQ(p.sent<Failed>()[0].second.code, ErrorCode::kInternal);
  EXPECT_TRUE(p.sent<Token>().empty());
  p.finish_steps();
  EXPECT_EQ(p.sent<Token>().size(), 1u);
}

struct BadWork {
  std::string name;
  std::function<void(Work&)> spoil;
  ErrorCode code;
};

TEST(PrefillExit, BadWorkIsRefusedByNameAtBothEndsAndHoldsNothing) {
  const std::vector<BadWork> cases = {
      {"empty prompt", [](Work& w) { w.prompt.clear(); }, ErrorCode::kInvalidArgument},
      {"no output", [](Work& w) { w.output_tokens_max = 0; }, ErrorCode::kInvalidArgument},
      {"unknown token", [](Work& w) { w.prompt[3] = kVocab; }, ErrorCode::kInvalidArgument},
      {"too long", [](Work& w) { w.output_tokens_max = UINT32_MAX; }, ErrorCode::kTooLong},
      {"more blocks than the pool", [](Work& w) { w.prompt.assign(1000, 5); }, ErrorCode::kTooLong},
      {"transfer id in use", [](Work& w) { w.attempt.transfer = attempt(9).transfer; }, ErrorCode::kInvalidArgument},
  };
  for (const BadWork& bad : cases) {
    SCOPED_TRACE(bad.name);
    PrefillScript p({.slots = 10});
    p.connect();
    p.prefill(64, attempt(9));
    const uint32_t held = p.cache.counts().held;
    Work spoiled = work(attempt(), 64);
    bad.spoil(spoiled);
    p.from(kGateway, Prefill{spoiled, kDecodeBoot});
    const auto failed = p.sent<Failed>();
    ASSERT_EQ(failed.size(), 2u);
    EXPECT_EQ(failed[0].first, kGateway);
    EXPECT_EQ(failed[1].first, kDecodePeer);
    EXPECT_EQ(failed[0].second.code, bad.code);
    EXPECT_FALSE(failed[0].second.detail.empty());
    EXPECT_EQ(p.cache.counts().held, held);
    EXPECT_EQ(p.node.requests(), 1u);
  }
}

TEST(PrefillExit, AFullNodeRefusesWithNoSpace) {
  PrefillScript slots({.slots = 5});
  slots.connect();
  slots.prefill(256, attempt(1));
  slots.prefill(256, attempt(2));
  ASSERT_EQ(slots.sent<Failed>().size(), 2u);
  EXPECT_EQ(slots.sent<Failed>()[0].second.code, ErrorCode::kNoSpace);

  PrefillScript rows({.requests_max = 2});
  rows.connect();
  for (uint64_t request = 1; request <= 3; ++request) rows.prefill(64, attempt(request));
  EXPECT_EQ(rows.node.requests(), 2u);
  ASSERT_EQ(rows.sent<Failed>().size(), 2u);
  EXPECT_EQ(rows.sent<Failed>()[0].second.code, ErrorCode::kNoSpace);
  EXPECT_EQ(rows.sent<Failed>()[0].second.attempt, attempt(3));
}

TEST(PrefillExit, ACommitThatAnswersNoPrefillDoneIsIgnored) {
  PrefillScript p;
  p.connect();
  p.prefill(200);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.from(kDecodePeer, Committed{attempt()});
  EXPECT_EQ(p.node.requests(), 1u);
  p.finish_steps();
  EXPECT_EQ(p.sent<Token>().size(), 1u);
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
}

TEST(PrefillExit, TheLargestTurnFitsEffectsMax) {
  PrefillScript p({.requests_max = 8, .window = 1});
  p.connect();
  for (uint64_t request = 1; request <= 8; ++request) p.prefill(64, attempt(request));
  p.finish_steps();
  p.pass(p.config.hold_max);  // all at once, both ends told: the node CHECKs its bound
  EXPECT_EQ(p.sent<Failed>().size(), 16u);
  EXPECT_TRUE(p.empty());
}

TEST(PrefillExit, AGrantBeyondThePromptIsCorrupt) {
  PrefillScript p;
  p.connect();
  p.prefill(64);
  p.from(kDecodePeer, Grant{attempt(), 2});
  ASSERT_EQ(p.sent<Failed>().size(), 2u);
  EXPECT_EQ(p.sent<Failed>()[0].second.code, ErrorCode::kCorrupt);
  if (p.step) p.end_step();
  EXPECT_TRUE(p.empty());
}

}  // namespace
}  // namespace spillway::script
