#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "gateway/openai_request.h"
#include "tests/gateway/byte_model.h"

namespace spillway {
namespace {

class SamplingFields : public ::testing::Test {
 protected:
  Parsed<ApiRequest> parse(std::string_view body) const {
    return parse_api_request(Endpoint::kCompletions, body, model_, 1000, 99);
  }

  ByteTokenizer tokenizer_;
  ServedModel model_ = make_byte_model(tokenizer_);
};

TEST_F(SamplingFields, SamplingTakesItsBoundsAndNothingBeyond) {
  struct Field {
    std::string_view name;
    std::vector<std::string_view> good, bad;
  };
  const Field fields[] = {
      {"top_p", {"1", "1e-6", "1e-37", "1e-50", "0"}, {"-0.5", "1.0001"}},
      {"top_k", {"-1", "0", "1", "259"}, {"-2", "260", "2147483649", "18446744073709551615"}},
      {"min_p", {"0", "1", "1e-50"}, {"-0.1", "1.1"}},
      {"presence_penalty", {"-2", "2"}, {"-2.1", "2.1"}},
      {"frequency_penalty", {"-2", "2"}, {"-2.1", "2.1"}},
      {"repetition_penalty", {"0.01", "2"}, {"0", "-1", "2.1", "1e-50"}},
      {"priority", {"-100", "0", "100"}, {"-101", "101", "2147483648"}},
      {"min_tokens", {"0", "16"}, {"-1", "17", "1048577"}},
      {"logit_bias",
       {"{}", R"({"0":-100,"258":100})"},
       {R"({"259":1})", R"({"-1":1})", R"({"x":1})", R"({"":1})", R"({"1 ":1})", R"({"4294967297":1})",
        R"({"1":100.5})", R"({"1":-101})"}},
      {"stop_token_ids", {"[]", "[0,258]", "[1,2,3,4,5,6,7]"}, {"[259]", "[-1]", "[1,2,3,4,5,6,7,8]"}}};
  for (const Field& field : fields) {
    const auto with = [&](std::string_view value) {
      return parse(fmt::format(R"({{"prompt":"a","{}":{}}})", field.name, value));
    };
    for (const std::string_view value : field.good) EXPECT_TRUE(with(value)) << field.name << " " << value;
    for (const std::string_view value : field.bad) {
      const auto parsed = with(value);
      ASSERT_FALSE(parsed) << field.name << " " << value;
      EXPECT_EQ(parsed.error().param, field.name);
      EXPECT_EQ(parsed.error().code, "invalid_value") << value;
      EXPECT_NE(parsed.error().message.find(field.name), std::string::npos) << parsed.error().message;
    }
    for (const std::string_view value : {"\"x\"", "true"}) {
      const auto parsed = with(value);
      ASSERT_FALSE(parsed) << field.name << " " << value;
      EXPECT_EQ(parsed.error().param, field.name);
      EXPECT_EQ(parsed.error().code, "invalid_type");
    }
  }
}

TEST_F(SamplingFields, AtMostThreeHundredBiasesAreTaken) {
  const auto with = [&](int count) {
    std::string entries;
    for (int id = 0; id < count; ++id)
      entries += fmt::format("{}\"{:0>{}}\":1", id == 0 ? "" : ",", id % 259, 3 + id / 259);
    return parse(fmt::format(R"({{"prompt":"a","logit_bias":{{{}}}}})", entries));
  };
  ASSERT_TRUE(with(300));
  EXPECT_EQ(with(300)->work.sampling.logit_bias.size(), 300u);
  ASSERT_FALSE(with(301));
  EXPECT_EQ(with(301).error().param, "logit_bias");
}

TEST_F(SamplingFields, StopTokensAreTheModelsAndTheRequests) {
  const auto both = parse(R"({"prompt":"a","stop_token_ids":[5,6]})");
  const auto own = parse(R"({"prompt":"a","stop_token_ids":[1,2,3,4,5,6,7],"ignore_eos":true})");
  ASSERT_TRUE(both && own);
  EXPECT_EQ(both->work.stop_tokens, (std::vector<TokenId>{ByteTokenizer::kEnd, 5, 6}));
  EXPECT_EQ(own->work.stop_tokens, (std::vector<TokenId>{1, 2, 3, 4, 5, 6, 7}));
  // As many as without it: one number for /openapi.json.
  EXPECT_FALSE(parse(R"({"prompt":"a","stop_token_ids":[1,2,3,4,5,6,7,8],"ignore_eos":true})"));
}

TEST_F(SamplingFields, ATopPOfNothingIsOneThatTheNodesTake) {
  for (const char* const value : {"0", "-0.0", "1e-50", "1e-40"}) {
    const auto parsed = parse(fmt::format(R"({{"prompt":"a","top_p":{}}})", value));
    ASSERT_TRUE(parsed) << value;
    EXPECT_EQ(out_of_bounds(parsed->work.sampling), std::nullopt) << value;
    EXPECT_LT(parsed->work.sampling.top_p, 1e-37f) << value;
  }
}

TEST_F(SamplingFields, ATopKOfMinusOneIsOff) {
  const auto parsed = parse(R"({"prompt":"a","top_k":-1})");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->work.sampling.top_k, 0u);
}

TEST_F(SamplingFields, WholeNumbersMayBeWrittenWithAPoint) {
  const auto parsed = parse(R"({"prompt":[97.0,9.8e1],"max_tokens":16.0,"seed":-9007199254740991.0,"top_k":4e1,
      "stop_token_ids":[7.0],"priority":-7.0,"logprobs":2.0})");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->work.prompt, (std::vector<TokenId>{97, 98}));
  EXPECT_EQ(parsed->work.output_tokens_max, 16u);
  EXPECT_EQ(parsed->work.sampling.seed, static_cast<uint64_t>(-9007199254740991));
  EXPECT_EQ(parsed->work.sampling.top_k, 40u);
  EXPECT_EQ(parsed->work.stop_tokens, (std::vector<TokenId>{ByteTokenizer::kEnd, 7}));
  EXPECT_EQ(parsed->work.priority, -7);
  EXPECT_EQ(parsed->work.logprob_count, 3u);
}

}  // namespace
}  // namespace spillway
