#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/prefill_node/prefill_script.h"

namespace spillway::script {
namespace {

// (block, layer) -> times sent.
std::map<std::pair<uint32_t, uint32_t>, int> times_sent(const PrefillScript& p, const Attempt& about) {
  std::map<std::pair<uint32_t, uint32_t>, int> times;
  for (const SendParts& job : p.parts) {
    if (job.transfer != about.transfer) continue;
    for (uint32_t layer = 0; layer < job.layers.count; ++layer) ++times[{job.block_index, job.layers.first + layer}];
  }
  return times;
}

void expect_each_part_once(const PrefillScript& p, const Attempt& about, uint32_t first_block, uint32_t block_count) {
  const auto times = times_sent(p, about);
  EXPECT_EQ(times.size(), size_t{block_count - first_block} * kLayers);
  for (const auto& [part, count] : times) {
    EXPECT_EQ(count, 1) << "block " << part.first << " layer " << part.second;
    EXPECT_GE(part.first, first_block);
  }
}

class PromptLength : public ::testing::TestWithParam<uint32_t> {};

TEST_P(PromptLength, EachPartLeavesOnceThenTokenAndDoneThenItLetsGo) {
  const uint32_t prompt = GetParam();
  const uint32_t blocks = (prompt + kBlockTokens - 1) / kBlockTokens;
  PrefillScript p;
  p.connect();
  p.prefill(prompt);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_steps(7);
  const auto tokens = p.sent<Token>();
  ASSERT_EQ(tokens.size(), 1u);
  EXPECT_EQ(tokens[0].first, kGateway);
  EXPECT_EQ(tokens[0].second.index, 0u);
  EXPECT_EQ(tokens[0].second.token, 7u);
  EXPECT_EQ(tokens[0].second.finish, FinishReason::kNone);
  const auto done = p.sent<PrefillDone>();
  ASSERT_EQ(done.size(), 1u);
  EXPECT_EQ(done[0].first, kDecodePeer);
  EXPECT_EQ(done[0].second, (PrefillDone{attempt(), prompt, 7, false}));
  p.answer_sends();
  expect_each_part_once(p, attempt(), 0, blocks);
  EXPECT_EQ(p.cache.counts().held, blocks);  // until D says that it has them
  p.from(kDecodePeer, Committed{attempt()});
  EXPECT_TRUE(p.empty());
  EXPECT_EQ(p.node.next_deadline(), kNever);
}
INSTANTIATE_TEST_SUITE_P(Edges, PromptLength,
                         ::testing::Values(1, 63, 64, 65, 128, kChunkTokens, kChunkTokens + 1, 512, 700));

TEST(PrefillWalk, SamplingAndThePromptReachTheSampler) {
  PrefillScript p;
  p.connect();
  Work asked = work(attempt(), 64);
  asked.sampling = {.temperature = 0.5f, .repetition_penalty = 1.5f, .min_tokens = 1};
  p.from(kGateway, Prefill{asked, kDecodeBoot});
  ASSERT_TRUE(p.step);
  const SampleRow row = sample_row(*p.step, p.step->shares.at(0));
  EXPECT_TRUE(std::ranges::equal(row.history, asked.prompt));
  EXPECT_EQ(row.prompt_tokens, 64u);
  EXPECT_EQ(row.params.temperature, 0.5f);
  ASSERT_EQ(row.params.logit_bias.size(), 1u);
  EXPECT_EQ(row.params.logit_bias[0].token, kStopToken);
}

TEST(PrefillWalk, PartsOfLayerZeroLeaveBeforeTheLastLayerIsComputed) {
  PrefillScript p;
  p.connect();
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.prefill(512);
  p.finish_step();  // the first chunk: 4 blocks
  ASSERT_TRUE(p.step);
  const size_t before = p.parts.size();
  p.layer_done(0);
  ASSERT_EQ(p.parts.size(), before + 4);
  for (size_t i = before; i < p.parts.size(); ++i) {
    EXPECT_EQ(p.parts[i].layers, (LayerRange{0, 1}));
    EXPECT_EQ(p.parts[i].block_index, 4 + i - before);
  }
  for (uint16_t layer = 1; layer < kLayers; ++layer) {
    p.layer_done(layer);
    EXPECT_EQ(p.parts.back().layers.first, layer);
  }
  EXPECT_TRUE(p.sent<Token>().empty());  // all parts left, token 0 is not even sampled
  expect_each_part_once(p, attempt(), 0, 8);
}

TEST(PrefillWalk, FirstPartsLeaveOnTheFirstLayerOfTheFirstStep) {
  PrefillScript p;
  p.connect();
  p.prefill(512);
  p.from(kDecodePeer, Grant{attempt(), 0});
  EXPECT_TRUE(p.parts.empty());
  p.layer_done(0);
  EXPECT_EQ(p.parts.size(), kChunkTokens / kBlockTokens);
}

TEST(PrefillWalk, ABlockThatAChunkOnlyBeginsLeavesWithTheChunkThatFillsIt) {
  PrefillScript p;
  p.connect();
  p.prefill(kChunkTokens + 1);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_step();
  for (const SendParts& job : p.parts) EXPECT_LT(job.block_index, 4u);
  p.layer_done(0);
  EXPECT_EQ(p.parts.back().block_index, 4u);
  p.finish_step();
  expect_each_part_once(p, attempt(), 0, 5);
}

TEST(PrefillWalk, StepsThatAnnounceNoLayersStillSendEverythingOnce) {
  PrefillScript p;
  p.connect();
  p.prefill(100);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_step(7, true, false);
  p.answer_sends();
  expect_each_part_once(p, attempt(), 0, 2);
}

TEST(PrefillWalk, AGrantThatOvertakesItsPrefillIsKept) {
  PrefillScript p;
  p.connect();
  p.from(kDecodePeer, Grant{attempt(), 1});
  EXPECT_NE(p.node.next_deadline(), kNever);
  p.prefill(130);
  p.finish_steps();
  p.answer_sends();
  expect_each_part_once(p, attempt(), 1, 3);
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
}

TEST(PrefillWalk, AnEarlyGrantOfAnotherNodeOrAttemptIsNotTaken) {
  PrefillScript p;
  p.connect();
  p.from(kStranger, Grant{attempt(), 0});
  p.from(kDecodePeer, Grant{attempt(1, 4), 0});
  p.prefill(64);
  p.finish_steps();
  EXPECT_TRUE(p.parts.empty());
  EXPECT_TRUE(p.sent<PrefillDone>().empty());
  p.pass(p.config.hold_max * 2);
  EXPECT_TRUE(p.empty());
}

TEST(PrefillWalk, EarlyGrantsAreBoundedAndExpire) {
  PrefillScript p;
  p.connect();
  for (uint64_t request = 1; request <= 20; ++request)
    p.from(kDecodePeer, Grant{attempt(request), 0});  // checks the bound
  p.prefill(64, attempt(1));
  EXPECT_TRUE(p.sent<Failed>().empty());
  p.finish_steps();
  EXPECT_TRUE(p.parts.empty());  // its Grant was the oldest and gave way
  p.now += p.config.lease;
  p.deadline();
  p.prefill(64, attempt(20));
  p.finish_steps();
  EXPECT_TRUE(p.parts.empty());  // expired
  p.pass(p.config.hold_max * 2);
  EXPECT_EQ(p.node.next_deadline(), kNever);
}

TEST(PrefillWalk, ADoubledEarlyGrantTakesNoOthersPlace) {
  PrefillScript p;
  p.connect();
  p.from(kDecodePeer, Grant{attempt(1), 0});
  for (int times = 0; times < 10; ++times) p.from(kDecodePeer, Grant{attempt(2), 0});
  p.prefill(64, attempt(1));
  p.finish_steps();
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
}

TEST(PrefillWalk, ALateGrantSendsWhatWasComputedMeanwhile) {
  PrefillScript p;
  p.connect();
  p.prefill(512);
  p.finish_steps();
  EXPECT_TRUE(p.parts.empty());
  EXPECT_EQ(p.sent<Token>().size(), 1u);       // the client does not wait for D
  EXPECT_TRUE(p.sent<PrefillDone>().empty());  // D may not know the attempt yet
  p.from(kDecodePeer, Grant{attempt(), 3});
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
  p.from(kDecodePeer, Grant{attempt(), 0});  // doubled: changes nothing
  p.answer_sends();
  expect_each_part_once(p, attempt(), 3, 8);
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
}

TEST(PrefillWalk, ADecodeNodeThatHoldsThePrefixWhollyGetsPrefillDoneAlone) {
  PrefillScript p;
  p.connect();
  p.prefill(128);
  p.from(kDecodePeer, Grant{attempt(), 2});
  p.finish_steps();
  EXPECT_TRUE(p.parts.empty());
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
  p.from(kDecodePeer, Committed{attempt()});
  EXPECT_TRUE(p.empty());
}

TEST(PrefillWalk, CachedBlocksLeaveAtOnceAndOnlyTheRestIsComputed) {
  PrefillScript p;
  p.connect();
  const Attempt first = attempt(1, 5), second = attempt(1, 6);  // the same prompt again
  p.prefill(256, first);
  p.from(kDecodePeer, Grant{first, 0});
  p.finish_steps();
  p.answer_sends();
  p.from(kDecodePeer, Committed{first});
  p.forget_messages();
  p.prefill(256, second);
  p.from(kDecodePeer, Grant{second, 0});
  EXPECT_EQ(times_sent(p, second).size(), size_t{3} * kLayers);  // the last token must be computed, so its block too
  ASSERT_TRUE(p.step);
  EXPECT_EQ(p.step->tokens.size(), 64u);
  p.finish_steps();
  p.answer_sends();
  expect_each_part_once(p, second, 0, 4);
  ASSERT_EQ(p.sent<Token>().size(), 1u);
  EXPECT_EQ(p.sent<Token>()[0].second.timings.cached_tokens, 192u);
}

TEST(PrefillWalk, PartsWaitForTheBulkLink) {
  PrefillScript p;
  p.on(PeerUp{kGateway, hello(Role::kGateway, kGatewayBoot)});
  p.on(PeerUp{kDecodePeer, hello(Role::kDecode, kDecodeBoot)});
  p.prefill(64);
  p.from(kDecodePeer, Grant{attempt(), 0});
  p.finish_steps();
  EXPECT_TRUE(p.parts.empty());
  EXPECT_EQ(p.sent<PrefillDone>().size(), 1u);
  p.on(BulkReady{kDecodePeer});
  p.answer_sends();
  expect_each_part_once(p, attempt(), 0, 1);
}

TEST(PrefillWalk, TokenZeroMayEndTheRequest) {
  for (const bool by_length : {false, true}) {
    PrefillScript p;
    p.connect();
    p.prefill(200, attempt(), by_length ? 1 : 4);
    p.from(kDecodePeer, Grant{attempt(), 0});
    p.finish_steps(by_length ? 7 : kStopToken);
    ASSERT_EQ(p.sent<Token>().size(), 1u);
    EXPECT_EQ(p.sent<Token>()[0].second.finish, by_length ? FinishReason::kLength : FinishReason::kStop);
    ASSERT_EQ(p.sent<PrefillDone>().size(), 1u);
    EXPECT_TRUE(p.sent<PrefillDone>()[0].second.ended);
    EXPECT_EQ(p.node.requests(), 0u);
    p.answer_sends();
    EXPECT_TRUE(p.empty());
  }
}

TEST(PrefillWalk, AnEndAtTokenZeroReachesADecodeNodeThatGrantsLate) {
  PrefillScript p;
  p.connect();
  p.prefill(200, attempt(), 1);
  p.finish_steps();
  EXPECT_EQ(p.cache.counts().held, 0u);  // only the word is kept
  EXPECT_EQ(p.node.requests(), 1u);
  p.from(kDecodePeer, Grant{attempt(), 0});
  ASSERT_EQ(p.sent<PrefillDone>().size(), 1u);
  EXPECT_TRUE(p.sent<PrefillDone>()[0].second.ended);
  EXPECT_TRUE(p.parts.empty());
  EXPECT_TRUE(p.empty());
}

TEST(PrefillWalk, TimingsSayWhereTheTimeWent) {
  PrefillScript p;
  p.connect();
  p.prefill(64, attempt(9));
  p.now += 3 * kMs;
  p.prefill(64);  // waits for the step in flight
  p.now += 4 * kMs;
  p.finish_step();
  p.now += 5 * kMs;
  p.finish_step();
  const auto tokens = p.sent<Token>();
  ASSERT_EQ(tokens.size(), 2u);
  EXPECT_EQ(tokens[0].second.timings.wait_us, 0u);
  EXPECT_EQ(tokens[0].second.timings.compute_us, 7000u);
  EXPECT_EQ(tokens[1].second.timings.wait_us, 4000u);
  EXPECT_EQ(tokens[1].second.timings.compute_us, 5000u);
}

TEST(PrefillWalk, TwoPromptsShareStepsAndNeitherMixesWithTheOther) {
  PrefillScript p;
  p.connect();
  p.prefill(300, attempt(1));
  p.prefill(90, attempt(2));
  p.from(kDecodePeer, Grant{attempt(2), 0});
  p.from(kDecodePeer, Grant{attempt(1), 2});
  p.finish_steps();
  p.answer_sends();
  expect_each_part_once(p, attempt(1), 2, 5);
  expect_each_part_once(p, attempt(2), 0, 2);
  EXPECT_EQ(p.sent<Token>().size(), 2u);
}

TEST(PrefillWalk, LeasesRunFromTheGrantToTheCommit) {
  PrefillScript p;
  p.connect();
  p.prefill(64);
  p.finish_steps();
  p.now += std::chrono::seconds(1);
  p.from(kDecodePeer, Grant{attempt(), 0});
  EXPECT_EQ(p.node.next_deadline(), p.now + p.config.lease / 4);
  p.pass(p.config.lease);
  const auto leases = p.sent<spillway::Lease>();
  ASSERT_EQ(leases.size(), 4u);
  EXPECT_EQ(leases[0].first, kDecodePeer);
  EXPECT_EQ(leases[0].second, (spillway::Lease{attempt(), 5000}));
  p.from(kDecodePeer, Committed{attempt()});
  EXPECT_EQ(p.node.next_deadline(), kNever);
}

TEST(PrefillWalk, LoadGoesToGatewaysOnlyWhenItChanged) {
  PrefillScript p;
  p.on(PeerUp{kGateway, hello(Role::kGateway, kGatewayBoot)});
  ASSERT_EQ(p.loads.size(), 1u);
  EXPECT_EQ(p.loads[0].second, alone({64, 0, 0}, 4));
  p.on(PeerUp{kDecodePeer, hello(Role::kDecode, kDecodeBoot)});
  EXPECT_EQ(p.loads.size(), 1u);
  p.prefill(200);
  ASSERT_EQ(p.loads.size(), 2u);
  EXPECT_EQ(p.loads[1].second,
            alone({60, 1, 200, 0, 0, 0, 0, {.steps = 1, .step_tokens = 200, .step_sequences = 1}}, 3, 105));
  p.layer_done(0);
  EXPECT_EQ(p.loads.size(), 2u);
  p.finish_steps();
  ASSERT_EQ(p.loads.size(), 3u);
  EXPECT_EQ(p.loads[2].second, alone({60, 0, 0, 0, 0, 0, 0, p.loads[1].second.totals}, 3, 105));
  p.on(PeerUp{PeerId{50}, hello(Role::kGateway, BootId{51})});
  ASSERT_EQ(p.loads.size(), 5u) << "and the first one's share is less";
  EXPECT_EQ(p.loads[3].first, kGateway);
  EXPECT_EQ(p.loads[4].first, PeerId{50});
  EXPECT_EQ(p.loads[3].second.blocks_share + p.loads[4].second.blocks_share, 60u);
}

TEST(PrefillWalk, LinksFollowThePeers) {
  PrefillScript p;
  p.on(PeerUp{kGateway, hello(Role::kGateway, kGatewayBoot)});
  p.from(kGateway, PeerInfo{kDecodeBoot, "ipc://d"});
  ASSERT_EQ(p.links.size(), 1u);
  EXPECT_EQ(std::get<ConnectPeer>(p.links[0]).endpoint, "ipc://d");
  p.on(PeerUp{kDecodePeer, hello(Role::kDecode, kDecodeBoot)});
  ASSERT_EQ(p.links.size(), 2u);
  EXPECT_EQ(std::get<ConnectBulk>(p.links[1]).peer, kDecodePeer);
  p.from(kGateway, PeerInfo{kDecodeBoot, "ipc://d"});  // connected already
  EXPECT_EQ(p.links.size(), 2u);
  p.on(BulkLost{kDecodePeer});
  EXPECT_EQ(p.node.next_deadline(), p.now + p.config.bulk_retry);
  p.pass(std::chrono::seconds(1));
  ASSERT_EQ(p.links.size(), 3u);
  EXPECT_EQ(std::get<ConnectBulk>(p.links[2]).peer, kDecodePeer);
  p.on(PeerGone{kDecodePeer, "killed"});
  ASSERT_EQ(p.links.size(), 4u);
  EXPECT_EQ(std::get<DisconnectBulk>(p.links[3]).peer, kDecodePeer);
  p.on(BulkLost{kDecodePeer});  // the answer to DisconnectBulk
  EXPECT_EQ(p.node.next_deadline(), kNever);
}

}  // namespace
}  // namespace spillway::script
