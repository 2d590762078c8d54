#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "tests/decode_node/decode_states.h"

namespace spillway::script {
namespace {

void settle(DecodeScript& d) {
  if (d.step) d.finish_step();
  d.answer_closes();
}

TEST(DecodeExit, CancelEndsTheAttemptInEveryStateWithinOneStep) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    d.forget_messages();
    d.from(kGateway, Cancel{attempt()});
    EXPECT_EQ(d.node.requests(), 0u);
    settle(d);
    EXPECT_TRUE(d.messages.empty());  // G tells P itself, and wants no tokens
    EXPECT_TRUE(d.empty());
    d.from(kGateway, Cancel{attempt()});
    d.reserve(kStatePrompt);  // a late duplicate starts nothing
    EXPECT_TRUE(d.empty());
    EXPECT_EQ(d.node.next_deadline(), kNever);
  }
}

TEST(DecodeExit, AGatewayThatIsGoneEndsItsAttemptsAndThePrefillNodeIsTold) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    d.forget_messages();
    d.on(PeerGone{kGateway, "killed"});
    EXPECT_EQ(d.node.requests(), 0u);
    settle(d);
    EXPECT_TRUE(d.empty());
    const bool tells = state.granted || (state.live && !state.committed && !d.opened.empty());
    ASSERT_EQ(d.messages.size(), tells ? 1u : 0u);
    for (const auto& [to, message] : d.sent<Failed>()) EXPECT_EQ(to, kPrefillPeer);
  }
}

TEST(DecodeExit, AnotherGatewayEndsOnlyItsOwnAttempts) {
  constexpr PeerId kOther{5};
  constexpr BootId kOtherBoot{500};
  uint32_t own_attempts = 0;
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    const uint32_t before = d.node.requests();
    d.on(PeerUp{kOther, hello(Role::kGateway, kOtherBoot)});
    d.from(kOther, Cancel{attempt()});
    EXPECT_EQ(d.node.requests(), before);
    d.from(kOther, Reserve{work({{kOtherBoot, 1}, {kOtherBoot, 100}, Epoch{1}}, 20), kPrefillBoot});
    own_attempts += d.node.requests() - before;
    d.on(PeerGone{kOther, "killed"});
    EXPECT_EQ(d.node.requests(), before);
  }
  EXPECT_GT(own_attempts, 0u);
}

TEST(DecodeExit, APrefillNodeThatIsGoneFailsWhatIsNotCommittedAndOnlyThat) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    d.forget_messages();
    const bool connected = !d.opened.empty();
    d.on(PeerGone{kPrefillPeer, "killed"});
    const bool fails = state.live && !state.committed && connected;
    ASSERT_EQ(d.sent<Failed>().size(), fails ? 1u : 0u);
    for (const auto& [to, message] : d.sent<Failed>()) {
      EXPECT_EQ(to, kGateway);
      EXPECT_EQ(message.code, ErrorCode::kPeerLost);
    }
    const bool goes_on = state.live && state.committed;
    d.finish_steps();
    const auto tokens = d.sent<Token>();
    ASSERT_EQ(!tokens.empty(), goes_on);
    for (const auto& [to, token] : tokens) EXPECT_EQ(token.finish == FinishReason::kLength, token.index == 3);
    d.pass(d.config.lease * 2);
    EXPECT_TRUE(d.empty());
  }
}

TEST(DecodeExit, ABrokenBulkLinkFailsOnlyWhatStillWaitsForParts) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    const uint32_t requests = d.node.requests();
    d.forget_messages();
    d.on(BulkLost{kPrefillPeer});
    EXPECT_EQ(d.node.requests(), state.granted ? 0u : requests);
    EXPECT_EQ(d.sent<Failed>().size(), state.granted ? 2u : 0u);
    d.pass(d.config.lease * 2);
    EXPECT_TRUE(d.empty());
  }
}

TEST(DecodeExit, WithoutASignOfThePrefillNodeTheReservationEndsByItsLease) {
  for (const DecodeState& state : decode_states()) {
    if (!state.live || state.committed) continue;
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    d.forget_messages();
    d.pass(d.config.lease - kMs);
    EXPECT_EQ(d.node.requests(), 1u);
    d.pass(kMs);
    EXPECT_TRUE(d.empty());
    const bool connected = !d.opened.empty();
    ASSERT_EQ(d.sent<Failed>().size(), connected ? 2u : 1u);
    EXPECT_EQ(d.sent<Failed>()[0].first, kGateway);
    EXPECT_EQ(d.sent<Failed>()[0].second.code, connected ? ErrorCode::kDeadline : ErrorCode::kPeerLost);
  }
}

TEST(DecodeExit, EachSignOfThePrefillNodeRenewsTheLease) {
  const std::vector<std::function<void(DecodeScript&)>> signs = {
      [](DecodeScript& d) {
        d.from(kPrefillPeer, spillway::Lease{attempt(), 5000});
      },
      [](DecodeScript& d) {
        d.from(kPrefillPeer, spillway::Lease{attempt(), UINT32_MAX});
      },  // no longer than our own
      [](DecodeScript& d) {
        d.land(1, {4, 1});
      },
      [](DecodeScript& d) { d.done(kStatePrompt); },
  };
  for (const auto& sign : signs) {
    DecodeScript d;
    d.connect();
    d.reserve(kStatePrompt);
    d.now += d.config.lease / 2;
    sign(d);
    d.pass(d.config.lease - kMs);
    EXPECT_EQ(d.node.requests(), 1u);
    d.pass(kMs);
    EXPECT_EQ(d.node.requests(), 0u);
  }
}

TEST(DecodeExit, AShortLeaseNeverShortensWhatWasPromised) {
  DecodeScript d;
  d.connect();
  d.reserve(kStatePrompt);
  d.now += kMs;
  d.from(kPrefillPeer, spillway::Lease{attempt(), 0});
  d.from(kStranger, spillway::Lease{attempt(), 5000});
  d.pass(d.config.lease - 2 * kMs);
  EXPECT_EQ(d.node.requests(), 1u);
  d.pass(kMs);
  EXPECT_EQ(d.node.requests(), 0u);
}

TEST(DecodeExit, CorruptPartsFailTheAttemptAtBothEndsAndAreNeverDecoded) {
  DecodeScript d;
  d.connect();
  d.reserve(128, attempt(1));
  d.reserve(128, attempt(2));
  d.done(128, attempt(1));
  d.forget_messages();
  d.land(0, {0, kLayers}, attempt(1));
  d.land(1, {0, kLayers}, attempt(1), false);
  ASSERT_EQ(d.sent<Failed>().size(), 2u);
  EXPECT_EQ(d.sent<Failed>()[0].first, kGateway);
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kCorrupt);
  EXPECT_EQ(d.sent<Failed>()[1].first, kPrefillPeer);
  EXPECT_FALSE(d.step);
  EXPECT_EQ(d.node.requests(), 1u);
}

TEST(DecodeExit, AFailureOfThePrefillNodeReachesTheGatewayUnlessCommitted) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    d.forget_messages();
    const bool connected = !d.opened.empty();
    d.from(kPrefillPeer, Failed{attempt(), ErrorCode::kDeadline, "held too long"});
    const bool fails = state.live && !state.committed && connected;
    ASSERT_EQ(d.sent<Failed>().size(), fails ? 1u : 0u);
    for (const auto& [to, message] : d.sent<Failed>()) {
      EXPECT_EQ(to, kGateway);
      EXPECT_EQ(message.code, ErrorCode::kDeadline);
    }
    EXPECT_EQ(d.node.requests(), state.live && !fails ? 1u : 0u);
  }
}

TEST(DecodeExit, APrefillNodeThatLaysItsBlocksOutOtherwiseIsRefusedByName) {
  for (const bool reserve_first : {true, false}) {
    DecodeScript d;
    d.connect_gateway();
    Hello other = hello(Role::kPrefill, kPrefillBoot);
    other.name = "prefill 7";
    other.encoding.order = BlockEncoding::Order::kCanonical;
    if (reserve_first) d.reserve(64);
    d.on(PeerUp{kPrefillPeer, other});
    if (!reserve_first) d.reserve(64);
    EXPECT_TRUE(d.opened.empty());
    EXPECT_TRUE(d.sent<Grant>().empty());
    const auto failed = d.sent<Failed>();
    ASSERT_EQ(failed.size(), 2u);  // G and P
    for (const auto& [to, message] : failed) {
      EXPECT_EQ(message.code, ErrorCode::kUnsupported);
      EXPECT_NE(message.detail.find("prefill 7"), std::string::npos);
    }
    EXPECT_TRUE(d.empty());
  }
}

TEST(DecodeExit, ARefusalOfThePrefillNodeIsNotPassedOnAsItsOwn) {
  for (const ErrorCode code : {ErrorCode::kNoSpace, ErrorCode::kCancelled}) {
    DecodeScript d;
    d.connect();
    d.reserve(64);
    d.forget_messages();
    d.from(kPrefillPeer, Failed{attempt(), code, "the prefill node holds 4 requests, its limit"});
    EXPECT_TRUE(d.messages.empty());
    d.answer_closes();
    EXPECT_TRUE(d.empty());
    d.reserve(64, attempt(1, 6));  // the next placement
    EXPECT_EQ(d.node.requests(), 1u);
  }
}

TEST(DecodeExit, ARefusalThatOvertakesTheReserveKeepsItFromStarting) {
  DecodeScript d;
  d.connect();
  d.from(kPrefillPeer, Failed{attempt(), ErrorCode::kNoSpace, "full"});
  d.reserve(64);
  EXPECT_TRUE(d.empty());
  d.reserve(64, attempt(1, 6));
  EXPECT_EQ(d.node.requests(), 1u);
}

TEST(DecodeExit, ANewerEpochFencesTheOlder) {
  for (const DecodeState& state : decode_states()) {
    SCOPED_TRACE(state.name);
    DecodeScript d;
    state.reach(d);
    if (d.opened.empty()) d.connect_prefill();
    const Attempt newer = attempt(1, 6);
    d.reserve(kStatePrompt, newer);
    d.reserve(kStatePrompt);  // the older again
    d.from(kGateway, Cancel{attempt()});
    d.done(kStatePrompt);  // of the older
    d.land(0, {0, kLayers});
    ASSERT_EQ(d.node.requests(), 1u);
    settle(d);
    EXPECT_FALSE(d.step);
    d.forget_messages();
    d.land_all(newer);
    d.done(kStatePrompt, newer);
    d.finish_steps();
    ASSERT_EQ(d.sent<Token>().size(), 3u);
    EXPECT_EQ(d.sent<Token>()[0].second.attempt, newer);
    d.answer_closes();
    EXPECT_TRUE(d.empty());
  }
}

TEST(DecodeExit, LogitsThatAreNotFiniteFailThatRequestOnly) {
  DecodeScript d;
  d.connect();
  for (uint64_t request = 1; request <= 2; ++request) {
    d.reserve(70, attempt(request), 10);
    d.land_all(attempt(request));
    d.done(70, attempt(request));
  }
  d.forget_messages();
  d.finish_step(8, false);  // of request 1 alone
  ASSERT_EQ(d.sent<Failed>().size(), 1u);
  EXPECT_EQ(d.sent<Failed>()[0].first, kGateway);
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kInternal);
  d.finish_steps();
  EXPECT_EQ(d.sent<Token>().size(), 9u);
  d.answer_closes();
  EXPECT_TRUE(d.empty());
}

struct BadWork {
  std::string name;
  std::function<void(Work&)> spoil;
  ErrorCode code;
};

TEST(DecodeExit, BadWorkIsRefusedByNameAtBothEndsAndHoldsNothing) {
  const std::vector<BadWork> cases = {
      {"empty prompt", [](Work& w) { w.prompt.clear(); }, ErrorCode::kInvalidArgument},
      {"no output", [](Work& w) { w.output_tokens_max = 0; }, ErrorCode::kInvalidArgument},
      {"unknown token", [](Work& w) { w.prompt[3] = kVocab; }, ErrorCode::kInvalidArgument},
      {"too long", [](Work& w) { w.output_tokens_max = UINT32_MAX; }, ErrorCode::kTooLong},
      {"more blocks than the pool", [](Work& w) { w.output_tokens_max = 1000; }, ErrorCode::kTooLong},
      {"transfer id in use", [](Work& w) { w.attempt.transfer = attempt(9).transfer; }, ErrorCode::kInvalidArgument},
  };
  for (const BadWork& bad : cases) {
    SCOPED_TRACE(bad.name);
    DecodeScript d({.slots = 10});
    d.connect();
    d.reserve(64, attempt(9));
    d.forget_messages();
    const uint32_t held = d.cache.counts().held;
    Work spoiled = work(attempt(), 64);
    bad.spoil(spoiled);
    d.from(kGateway, Reserve{spoiled, kPrefillBoot});
    const auto failed = d.sent<Failed>();
    ASSERT_EQ(failed.size(), 2u);
    EXPECT_EQ(failed[0].first, kGateway);
    EXPECT_EQ(failed[1].first, kPrefillPeer);
    EXPECT_EQ(failed[0].second.code, bad.code);
    EXPECT_FALSE(failed[0].second.detail.empty());
    EXPECT_EQ(d.cache.counts().held, held);
    EXPECT_EQ(d.node.requests(), 1u);
  }
}

TEST(DecodeExit, ATransferIdThatStillClosesIsInUse) {
  DecodeScript d;
  d.connect();
  d.reserve(64);
  d.from(kGateway, Cancel{attempt()});
  Work again = work(attempt(1, 6), 64);
  again.attempt.transfer = attempt().transfer;
  d.from(kGateway, Reserve{again, kPrefillBoot});
  EXPECT_EQ(d.sent<Failed>().size(), 2u);
  EXPECT_EQ(d.node.requests(), 0u);
}

TEST(DecodeExit, AFullNodeRefusesWithNoSpace) {
  DecodeScript rows({.requests_max = 2});
  DecodeScript slots({.slots = 5});
  DecodeScript transfers({.transfers_max = 2});
  for (DecodeScript* d : {&rows, &slots, &transfers}) {
    d->connect();
    for (uint64_t request = 1; request <= 3; ++request) d->reserve(128, attempt(request), 2);
    ASSERT_GE(d->sent<Failed>().size(), 2u);
    EXPECT_EQ(d->sent<Failed>().back().second.code, ErrorCode::kNoSpace);
    EXPECT_EQ(d->sent<Failed>().back().second.attempt, attempt(3));
  }
}

TEST(DecodeExit, ReservationsThatWaitForThePrefillNodeKeepTheirPlaceInTheReceiver) {
  DecodeScript d({.transfers_max = 2});
  d.connect_gateway();
  for (uint64_t request = 1; request <= 3; ++request) d.reserve(64, attempt(request));
  EXPECT_EQ(d.node.requests(), 2u);
  d.connect_prefill();
  EXPECT_EQ(d.sent<Grant>().size(), 2u);
}

TEST(DecodeExit, TheLargestTurnFitsEffectsMax) {
  DecodeScript d({.requests_max = 8});
  d.connect();
  for (uint64_t request = 1; request <= 8; ++request) d.reserve(64, attempt(request));
  d.forget_messages();
  d.pass(d.config.lease);  // all at once, both ends told: the node CHECKs its bound
  EXPECT_EQ(d.sent<Failed>().size(), 16u);
  EXPECT_TRUE(d.empty());
}

TEST(DecodeExit, APrefillDoneThatContradictsTheReservationIsCorrupt) {
  for (const bool wrong_count : {false, true}) {
    DecodeScript d;
    d.connect();
    d.reserve(64);
    d.land_all();
    d.forget_messages();
    d.done(wrong_count ? 63 : 64, attempt(), wrong_count ? 7 : kVocab);
    ASSERT_EQ(d.sent<Failed>().size(), 2u);
    EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kCorrupt);
    EXPECT_FALSE(d.step);
    d.answer_closes();
    EXPECT_TRUE(d.empty());
  }
}

}  // namespace
}  // namespace spillway::script
