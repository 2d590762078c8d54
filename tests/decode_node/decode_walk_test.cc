#include <gtest/gtest.h>

#include <algorithm>

#include "tests/decode_node/decode_script.h"

namespace spillway::script {
namespace {

class PromptLength : public ::testing::TestWithParam<uint32_t> {};

TEST_P(PromptLength, ItReservesGrantsCommitsDecodesAndLeavesNothing) {
  const uint32_t prompt = GetParam();
  const uint32_t output = 6;
  const uint32_t blocks = (prompt + kBlockTokens - 1) / kBlockTokens;
  DecodeScript d;
  d.connect();
  d.reserve(prompt, attempt(), output);
  EXPECT_EQ(d.cache.counts().held, (prompt + output - 1 + kBlockTokens - 1) / kBlockTokens);
  ASSERT_EQ(d.opened.size(), 1u);
  EXPECT_EQ(d.opened[0].slots.size(), blocks);
  EXPECT_EQ(d.opened[0].from, kPrefillPeer);
  ASSERT_EQ(d.sent<Grant>().size(), 1u);
  EXPECT_EQ(d.sent<Grant>()[0].first, kPrefillPeer);
  EXPECT_EQ(d.sent<Grant>()[0].second, (Grant{attempt(), 0}));
  d.done(prompt);
  EXPECT_FALSE(d.step);
  d.land_all();
  ASSERT_EQ(d.sent<Committed>().size(), 1u);
  EXPECT_EQ(d.sent<Committed>()[0].first, kPrefillPeer);
  EXPECT_EQ(d.closes.size(), 1u);
  ASSERT_TRUE(d.step);
  EXPECT_EQ(d.step->tokens, std::vector<TokenId>{7});
  EXPECT_EQ(d.step->shares[0].position_first, prompt);
  d.finish_steps(8);
  const auto tokens = d.sent<Token>();
  ASSERT_EQ(tokens.size(), output - 1);  // token 0 came from P
  for (uint32_t i = 0; i < tokens.size(); ++i) {
    EXPECT_EQ(tokens[i].first, kGateway);
    EXPECT_EQ(tokens[i].second.index, i + 1);
    EXPECT_EQ(tokens[i].second.finish, i + 1 == tokens.size() ? FinishReason::kLength : FinishReason::kNone);
  }
  EXPECT_EQ(d.node.requests(), 0u);
  d.answer_closes();
  EXPECT_TRUE(d.empty());
  EXPECT_EQ(d.node.next_deadline(), kNever);
}
INSTANTIATE_TEST_SUITE_P(Edges, PromptLength, ::testing::Values(1, 63, 64, 65, 128, kChunkTokens + 1, 512));

TEST(DecodeWalk, SamplingAndAllTokensSoFarReachTheSampler) {
  DecodeScript d;
  d.connect();
  Work asked = work(attempt(), 64);
  asked.sampling = {.temperature = 0.5f, .frequency_penalty = 1, .min_tokens = 2};
  d.from(kGateway, Reserve{asked, kPrefillBoot});
  d.land_all();
  d.done(64);
  std::vector<TokenId> history = asked.prompt;
  for (const TokenId token : {7u, 8u, 9u}) {  // 7 came from P
    history.push_back(token);
    ASSERT_TRUE(d.step);
    const SampleRow row = sample_row(*d.step, d.step->shares.at(0));
    EXPECT_TRUE(std::ranges::equal(row.history, history));
    EXPECT_EQ(row.prompt_tokens, 64u);
    EXPECT_EQ(row.params.temperature, 0.5f);
    EXPECT_EQ(row.params.logit_bias.size(), token == 7 ? 1u : 0u) << "the stop token is withheld twice";
    d.finish_step(token + 1);
  }
}

TEST(DecodeWalk, AStopTokenEndsTheRequest) {
  DecodeScript d;
  d.connect();
  d.reserve(64, attempt(), 100);
  d.land_all();
  d.done(64);
  d.finish_step(8);
  d.finish_step(kStopToken);
  ASSERT_EQ(d.sent<Token>().size(), 2u);
  EXPECT_EQ(d.sent<Token>()[1].second.finish, FinishReason::kStop);
  EXPECT_FALSE(d.step);
  d.answer_closes();
  EXPECT_TRUE(d.empty());
}

TEST(DecodeWalk, ItCommitsOnlyWhenPartsAndPrefillDoneAreBothThere) {
  DecodeScript d;
  d.connect();
  d.reserve(128);
  d.land(0, {0, kLayers});
  for (uint16_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_FALSE(d.step);
    d.land(1, {layer, 1});
  }
  EXPECT_FALSE(d.step);  // token 0 is not known
  EXPECT_TRUE(d.sent<Committed>().empty());
  d.done(128);
  EXPECT_TRUE(d.step);
  EXPECT_EQ(d.sent<Committed>().size(), 1u);
}

TEST(DecodeWalk, TheGrantWaitsForThePrefillNodeToConnect) {
  DecodeScript d;
  d.connect_gateway();
  d.reserve(130);
  EXPECT_TRUE(d.messages.empty());
  EXPECT_TRUE(d.opened.empty());
  d.on(PeerUp{kStranger, hello(Role::kPrefill, kStrangerBoot)});
  EXPECT_TRUE(d.messages.empty());
  d.connect_prefill();
  ASSERT_EQ(d.sent<Grant>().size(), 1u);
  EXPECT_EQ(d.opened.size(), 1u);
  d.land_all();
  d.done(130);
  EXPECT_TRUE(d.step);
}

TEST(DecodeWalk, BlocksItHoldsAreNotAskedFor) {
  DecodeScript d;
  d.connect();
  d.reserve(200, attempt(1, 5));
  d.land_all(attempt(1, 5));
  d.done(200, attempt(1, 5));
  d.finish_steps();
  d.answer_closes();
  d.forget_messages();
  const Attempt again = attempt(1, 6);
  d.reserve(200, again);
  ASSERT_EQ(d.sent<Grant>().size(), 1u);
  EXPECT_EQ(d.sent<Grant>()[0].second.first_block, 3u);
  EXPECT_EQ(d.opened.back().first_block, 3u);
  EXPECT_EQ(d.opened.back().slots.size(), 1u);
  d.land_all(again);
  d.done(200, again);
  d.finish_steps();
  EXPECT_EQ(d.sent<Token>()[0].second.timings.cached_tokens, 192u);
}

TEST(DecodeWalk, APrefixHeldWhollyNeedsNoPartsAndCommitsOnPrefillDone) {
  DecodeScript d;
  d.connect();
  d.reserve(128, attempt(1, 5));
  d.land_all(attempt(1, 5));
  d.done(128, attempt(1, 5));
  d.finish_steps();
  d.answer_closes();
  d.opened.clear();
  d.forget_messages();
  const Attempt again = attempt(1, 6);
  d.reserve(128, again);
  EXPECT_TRUE(d.opened.empty());
  ASSERT_EQ(d.sent<Grant>().size(), 1u);
  EXPECT_EQ(d.sent<Grant>()[0].second.first_block, 2u);
  EXPECT_FALSE(d.step);
  d.done(128, again);
  ASSERT_TRUE(d.step);
  d.finish_steps();
  EXPECT_EQ(d.sent<Token>().size(), 3u);
  EXPECT_TRUE(d.closes.empty());
  EXPECT_TRUE(d.empty());
}

TEST(DecodeWalk, BlocksOfAnotherNumericsClassAreUsedButNotShared) {
  DecodeScript d;
  d.connect_gateway();
  Hello other = hello(Role::kPrefill, kPrefillBoot);
  other.encoding.numerics = NumericsClass{9};
  d.on(PeerUp{kPrefillPeer, other});
  d.reserve(128);
  d.land_all();
  d.done(128);
  d.finish_steps();
  d.answer_closes();
  EXPECT_EQ(d.sent<Token>().size(), 3u);
  EXPECT_EQ(d.cache.counts().cached, 0u);
}

TEST(DecodeWalk, PartsOfAnotherKvDtypeAreRefusedByName) {
  DecodeScript d;
  d.connect_gateway();
  Hello other = hello(Role::kPrefill, kPrefillBoot);
  other.encoding.dtype = KvDtype::kInt8;
  d.on(PeerUp{kPrefillPeer, other});
  d.reserve(128);
  EXPECT_TRUE(d.sent<Grant>().empty());
  ASSERT_FALSE(d.sent<Failed>().empty());
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kUnsupported);
  EXPECT_NE(d.sent<Failed>()[0].second.detail.find("int8"), std::string::npos);
  d.answer_closes();
  EXPECT_TRUE(d.empty());
}

TEST(DecodeWalk, AnEndAtTokenZeroReleasesWithoutAStep) {
  DecodeScript d;
  d.connect();
  d.reserve(128);
  d.land(0, {0, kLayers});
  d.done(128, attempt(), 7, true);
  EXPECT_EQ(d.node.requests(), 0u);
  ASSERT_EQ(d.sent<Committed>().size(), 1u);
  EXPECT_FALSE(d.step);
  EXPECT_GT(d.cache.counts().held, 0u);  // a part may be landing
  d.answer_closes();
  EXPECT_TRUE(d.empty());
}

TEST(DecodeWalk, SlotsOfAClosingTransferAreNotGivenOut) {
  DecodeScript d({.slots = 4});
  d.connect();
  d.reserve(256 - 3, attempt(1));
  d.from(kGateway, Cancel{attempt(1)});
  d.reserve(64, attempt(2));
  ASSERT_EQ(d.sent<Failed>().size(), 2u);
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kNoSpace);
  d.answer_closes();
  d.reserve(64, attempt(3));
  EXPECT_EQ(d.node.requests(), 1u);
}

TEST(DecodeWalk, RequestsDecodeTogether) {
  DecodeScript d;
  d.connect();
  for (uint64_t request = 1; request <= 3; ++request) {
    d.reserve(70, attempt(request), 10);
    d.land_all(attempt(request));
    d.done(70, attempt(request));
  }
  d.finish_step();
  ASSERT_TRUE(d.step);
  EXPECT_EQ(d.step->shares.size(), 3u);
  d.finish_steps();
  EXPECT_EQ(d.sent<Token>().size(), 27u);
}

TEST(DecodeWalk, TimingsSayWhereTheTimeWent) {
  DecodeScript d;
  d.connect();
  d.reserve(70, attempt(9), 3);
  d.land_all(attempt(9));
  d.done(70, attempt(9));  // its step is in flight
  d.reserve(128);
  d.land(0, {0, kLayers});
  d.now += 3 * kMs;
  d.done(128);
  d.now += 4 * kMs;
  d.land(1, {0, kLayers});
  d.now += 5 * kMs;
  d.finish_step();
  d.forget_messages();
  d.finish_step();
  const auto tokens = d.sent<Token>();
  ASSERT_EQ(tokens.size(), 2u);
  const NodeTimings& timings = tokens[1].second.timings;
  EXPECT_EQ(tokens[1].second.attempt, attempt());
  EXPECT_EQ(timings.transfer_us, 7000u);
  EXPECT_EQ(timings.commit_us, 4000u);
  EXPECT_EQ(timings.wait_us, 5000u);
  EXPECT_EQ(timings.compute_us, 2000u);
  EXPECT_EQ(tokens[0].second.timings, NodeTimings{});  // token 2
}

TEST(DecodeWalk, LoadFollowsWhatIsReserved) {
  DecodeScript d;
  d.connect();
  ASSERT_EQ(d.loads.size(), 1u);
  EXPECT_EQ(d.loads[0].second, alone({64, 0, 0}, 4));
  d.reserve(128);
  ASSERT_EQ(d.loads.size(), 2u);
  EXPECT_EQ(d.loads[1].second, alone({61, 1, 0}, 3, 105));
  d.land(0, {0, kLayers});
  EXPECT_EQ(d.loads.size(), 2u);
  d.from(kGateway, Cancel{attempt()});
  EXPECT_EQ(d.loads.back().second, alone({62, 0, 0}, 4, 105));  // what may still be written is not free
  d.answer_closes();
  EXPECT_EQ(d.loads.back().second, alone({64, 0, 0}, 4, 105));
}

TEST(DecodeWalk, LoadTellsStepsAndTransfersSinceTheStart) {
  DecodeScript d;
  d.connect();
  d.reserve(70, attempt(1), 3);
  d.reserve(70, attempt(2), 3);
  for (const uint64_t request : {1, 2}) {
    d.land_all(attempt(request));
    d.done(70, attempt(request));
  }
  d.finish_steps();
  const size_t bytes = d.cache.config().layout.block_bytes();
  const NodeTotals after_two = d.loads.back().second.totals;
  EXPECT_GE(after_two.steps, 2u);
  EXPECT_EQ(after_two.step_sequences, 4u);  // two tokens of each
  EXPECT_EQ(after_two.step_tokens, 4u);
  EXPECT_EQ(after_two.transfers, 2u);
  EXPECT_EQ(after_two.transfer_bytes, 4 * bytes);
  EXPECT_EQ(after_two.transfer_failures, 0u);
  d.reserve(70, attempt(3));
  d.land(0, {0, kLayers}, attempt(3), false);
  EXPECT_EQ(d.loads.back().second.totals.transfer_failures, 1u);
  d.reserve(70, attempt(4));
  d.from(kPrefillPeer, Failed{attempt(4), ErrorCode::kInternal, "no"});
  EXPECT_EQ(d.loads.back().second.totals.transfer_failures, 2u);
  d.reserve(70, attempt(5));
  d.from(kPrefillPeer, Failed{attempt(5), ErrorCode::kNoSpace, "full"});  // tried again: no transfer began
  EXPECT_EQ(d.loads.back().second.totals.transfer_failures, 2u);
  EXPECT_EQ(d.loads.back().second.totals.transfer_bytes, 4 * bytes);
}

TEST(DecodeWalk, LinksFollowThePeers) {
  DecodeScript d;
  d.on(PeerUp{kPrefillPeer, hello(Role::kPrefill, kPrefillBoot)});
  ASSERT_EQ(d.links.size(), 1u);
  EXPECT_EQ(std::get<ConnectBulk>(d.links[0]).peer, kPrefillPeer);
  d.on(BulkLost{kPrefillPeer});
  d.pass(std::chrono::seconds(1));
  EXPECT_EQ(d.links.size(), 2u);
  d.on(PeerGone{kPrefillPeer, "killed"});
  EXPECT_EQ(std::get<DisconnectBulk>(d.links.back()).peer, kPrefillPeer);
}

TEST(DecodeWalk, ABrokenBulkLinkIsBlamedOnItsPrefillNodeByName) {
  DecodeScript d;
  Hello named = hello(Role::kPrefill, kPrefillBoot);
  named.name = "prefill 7";
  d.connect_gateway();
  d.on(PeerUp{kPrefillPeer, named});
  d.on(BulkReady{kPrefillPeer});
  d.reserve(70);
  d.on(BulkLost{kPrefillPeer});
  ASSERT_EQ(d.sent<Failed>().size(), 2u);
  for (const auto& [to, failed] : d.sent<Failed>()) EXPECT_EQ(failed.detail, "the bulk link from prefill 7 broke");
}

}  // namespace
}  // namespace spillway::script
