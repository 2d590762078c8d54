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
      {"top_p", {"1", "1e-6", "1e-37"}, {"0", "-0.5", "1.0001", "1e-50"}},
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
  const auto own = parse(R"({"prompt":"a","stop_token_ids":[1,2,3,4,5,6,7,8],"ignore_eos":true})");
  ASSERT_TRUE(both && own);
  EXPECT_EQ(both->work.stop_tokens, (std::vector<TokenId>{ByteTokenizer::kEnd, 5, 6}));
  EXPECT_EQ(own->work.stop_tokens, (std::vector<TokenId>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_FALSE(parse(R"({"prompt":"a","stop_token_ids":[1,2,3,4,5,6,7,8,9],"ignore_eos":true})"));
}

TEST_F(SamplingFields, ATopKOfMinusOneIsOff) {
  const auto parsed = parse(R"({"prompt":"a","top_k":-1})");
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->work.sampling.top_k, 0u);
}

}  // namespace
}  // namespace spillway
