// What is public of a prompt, from the operator's line to the work that the nodes get.
#include "gateway/public_prefixes.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <array>
#include <string>

#include "gateway/api_keys.h"
#include "gateway/openai_request.h"
#include "tests/gateway/ask.h"
#include "tests/gateway/byte_model.h"
#include "tests/gateway/gateway_under_test.h"
#include "tests/gateway/loop_scripts.h"

namespace spillway {
namespace {

using Tokens = std::vector<TokenId>;
constexpr std::array<std::byte, 32> kSecret{std::byte{1}};
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;
constexpr PeerId kP2 = GatewayUnderTest::kP2, kD2 = GatewayUnderTest::kD2;

RC_GTEST_PROP(PublicPrefixes, TheLongestCommonBeginningIsFound, ()) {
  const auto few = rc::gen::container<Tokens>(rc::gen::inRange<TokenId>(0, 3));  // so that beginnings agree
  auto prefixes = *rc::gen::container<std::vector<Tokens>>(few);
  if (prefixes.size() > kPublicPrefixesMax) prefixes.resize(kPublicPrefixesMax);
  const Tokens prompt = *few;
  uint32_t longest = 0;
  for (const Tokens& prefix : prefixes) {
    uint32_t common = 0;
    while (common < prompt.size() && common < prefix.size() && prompt[common] == prefix[common]) ++common;
    longest = std::max(longest, common);
  }
  RC_ASSERT(PublicPrefixes(prefixes, kSecret).of(prompt).tokens == longest);
}

TEST(PublicPrefixes, TheKeyIsTheSecretsAndNoTenants) {
  const Tokens prompt{1, 2, 3};
  const TenantKey key = PublicPrefixes({{1, 2}}, kSecret).of(prompt).key;
  EXPECT_EQ(PublicPrefixes({{9}, {1}}, kSecret).of(prompt).key, key) << "whatever else is public";
  EXPECT_NE(PublicPrefixes({{1, 2}}, std::array<std::byte, 32>{std::byte{2}}).of(prompt).key, key);
  const std::vector<std::string> names{"public-prefix", "api-key:public-prefix"};
  const ApiKeys keys(names, kSecret);
  for (const std::string& name : names) EXPECT_NE(*keys.find("Bearer " + name), key);
  EXPECT_EQ(PublicPrefixes({{2}}, kSecret).of(prompt), PublicPrefix{});
  EXPECT_EQ(PublicPrefixes().of(prompt), PublicPrefix{});
}

TEST(PublicPrefixes, OfEachPromptAndChoiceTheNodesAreTold) {
  HttpConfig config;
  config.keys = ApiKeys(std::vector<std::string>{"alpha", "beta"}, kSecret);
  config.public_prefixes = PublicPrefixes({{'a', 'b', 'c'}}, kSecret);
  FakeLoop loop(says("x"), config);
  for (const char* const key : {"alpha", "beta"})
    EXPECT_EQ(ask(loop, "/v1/completions", R"({"prompt":["abcd","abX"],"n":2})",
                  std::string("Authorization: Bearer ") + key + "\r\n")
                  .status,
              200u);
  const std::vector<GenerateRequest> works = loop.arrived();
  ASSERT_EQ(works.size(), 8u);
  for (size_t index = 0; index < works.size(); ++index) {
    EXPECT_EQ(works[index].public_prefix.tokens, index % 4 < 2 ? 3u : 2u) << index;
    EXPECT_EQ(works[index].public_prefix.key, works[0].public_prefix.key);
  }
  EXPECT_NE(works.front().tenant, works.back().tenant);
}

class PublicLine : public testing::Test {
 protected:
  Tokens taken(std::string_view line) const {
    const auto parsed = parse_public_prefix(line, model_);
    EXPECT_TRUE(parsed) << parsed.error().message;
    return parsed ? *parsed : Tokens{};
  }
  std::string refused(std::string_view line) const {
    const auto parsed = parse_public_prefix(line, model_);
    return parsed ? "taken" : parsed.error().message;
  }
  ByteTokenizer tokenizer_;
  ServedModel model_ = make_byte_model(tokenizer_, 100);
};

TEST_F(PublicLine, AChatIsABeginningOfEveryChatThatContinuesIt) {
  const Tokens prefix = taken(R"({"messages":[{"role":"system","content":"Be brief."}]})");
  const auto chat = parse_api_request(
      Endpoint::kChatCompletions,
      R"({"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hi"}]})", model_, 100, 1);
  ASSERT_TRUE(chat);
  EXPECT_EQ(PublicPrefixes({prefix}, kSecret).of(chat->work.prompt).tokens, prefix.size());
  EXPECT_LT(prefix.size(), chat->work.prompt.size());
}

TEST_F(PublicLine, TextAndTokenIdsAreTakenAsARequestTakesThem) {
  EXPECT_EQ(taken(R"({"prompt":"a<|im_end|>"})"), (Tokens{'a', ByteTokenizer::kEnd}));
  EXPECT_EQ(taken(R"({"prompt":[7,8]})"), (Tokens{7, 8}));
  EXPECT_EQ(taken(R"({"model":"bytes","temperature":0,"prompt":"a"})"), (Tokens{'a'})) << "a whole request, pasted";
}

TEST_F(PublicLine, EverythingElseIsRefusedWithItsCause) {
  const auto says_why = [&](std::string_view line, std::string_view cause) {
    EXPECT_NE(refused(line).find(cause), std::string::npos) << line << ": " << refused(line);
  };
  says_why("nonsense", "JSON");
  says_why("{}", "it needs messages, or prompt");
  says_why(R"({"prompts":"a"})", "it needs messages, or prompt");
  says_why(R"({"prompt":"a","messages":[{"role":"user","content":"a"}]})", "it is no field of such a prefix");
  says_why(R"({"prompt":["a","b"]})", "must be a token id");
  says_why(R"({"prompt":[259]})", "is not a token id");
  says_why(R"({"prompt":"a","temperature":9})", "temperature");
  says_why(R"({"prompt":""})", "has 0 tokens");
  says_why(R"({"messages":[]})", "messages has 0 entries");
  says_why(R"({"messages":[{"role":"oracle","content":"a"}]})", "role must be");
  says_why(R"({"prompt":")" + std::string(100, 'a') + "\"}", "has 1 to 99");
  EXPECT_EQ(taken(R"({"prompt":")" + std::string(99, 'a') + "\"}").size(), 99u);
}

TEST_F(PublicLine, ItsTokensAreBoundedWhateverTheContextIs) {
  const ServedModel large = make_byte_model(tokenizer_, 1 << 20);
  const auto with = [&](size_t tokens) {
    const auto parsed = parse_public_prefix(R"({"prompt":")" + std::string(tokens, 'a') + "\"}", large);
    return parsed ? "taken" : parsed.error().message;
  };
  EXPECT_EQ(with(kPublicPrefixTokensMax), "taken");
  EXPECT_NE(with(kPublicPrefixTokensMax + 1).find("has 1 to 65536"), std::string::npos);
}

// Two nodes of each role; the ones that had the first request have a little more to do.
class PublicAffinity : public testing::Test {
 protected:
  void SetUp() override {
    for (const PeerId node : {kP, kP2}) test_.up(node, Role::kPrefill);
    for (const PeerId node : {kD, kD2}) test_.up(node, Role::kDecode);
    arrive(1, 200);
    test_.token(kP, test_.attempt(), 0, FinishReason::kStop);
    test_.message(kP, Load{.blocks_free = 64, .running_sequences = 1, .queued_prompt_tokens = 100});
    test_.message(kD, Load{.blocks_free = 60, .running_sequences = 1});
  }
  void arrive(uint8_t tenant, uint32_t public_tokens) {
    GenerateRequest work;
    work.request = {BootId{77}, 100 + ++requests_};
    work.prompt.assign(200, TokenId{5});
    work.output_tokens_max = 4;
    work.stop_tokens = {2};
    work.tenant.bytes.fill(std::byte{tenant});
    if (public_tokens > 0) work.public_prefix = {{{std::byte{9}}}, public_tokens};
    test_.on(RequestArrived{work});
  }
  GatewayUnderTest test_;
  uint64_t requests_ = 0;
};

TEST_F(PublicAffinity, AnotherTenantsPublicPrefixIsWhereTheFirstLeftIt) {
  arrive(2, 200);
  ASSERT_EQ(test_.all<Prefill>(kP).size(), 2u);
  EXPECT_EQ(test_.all<Reserve>(kD).size(), 2u);
  EXPECT_EQ(test_.all<Prefill>(kP).back().work.public_prefix, (PublicPrefix{{{std::byte{9}}}, 200}));
  EXPECT_EQ(test_.all<Reserve>(kD).back().work.public_prefix.tokens, 200u);
}

TEST_F(PublicAffinity, WhatIsNotPublicIsNoReasonToGoThere) {
  arrive(2, 0);
  EXPECT_EQ(test_.all<Prefill>(kP2).size(), 1u);
}

TEST_F(PublicAffinity, ASpanThatIsPartlyPublicIsTheTenantsOwn) {
  arrive(2, 127);  // one span, and nearly a second: less than the 100 tokens more that wait there
  EXPECT_EQ(test_.all<Prefill>(kP2).size(), 1u);
}

}  // namespace
}  // namespace spillway
