// Prompts that do not fit: refused with as little work as can be, and none that fits.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "gateway/openai_request.h"
#include "tests/gateway/byte_model.h"

namespace spillway {
namespace {

class PromptLength : public ::testing::Test {
 protected:
  PromptLength() {
    tokenizer_.before_encode = [this](std::string_view) { encoded_ = true; };
  }
  static std::string message_of(std::string_view content) {
    return fmt::format(R"({{"messages":[{{"role":"user","content":"{}"}}]}})", content);
  }
  std::string error_of(Endpoint endpoint, const std::string& body) const { return error_of(endpoint, body, model_); }
  static std::string error_of(Endpoint endpoint, const std::string& body, const ServedModel& model) {
    const auto parsed = parse_api_request(endpoint, body, model, 1000, 99);
    if (parsed) return "";
    EXPECT_EQ(parsed.error().status, 400u);
    EXPECT_EQ(parsed.error().code, "context_length_exceeded");
    EXPECT_EQ(parsed.error().param, endpoint == Endpoint::kCompletions ? "prompt" : "messages");
    return parsed.error().message;
  }

  ByteTokenizer tokenizer_;  // of up to 13 bytes a token
  ServedModel model_ = make_byte_model(tokenizer_);
  bool encoded_ = false;
};

TEST_F(PromptLength, TextThatCannotFitIsRefusedBeforeItIsEncoded) {
  EXPECT_EQ(
      error_of(Endpoint::kCompletions, fmt::format(R"({{"prompt":"{:a>13000}"}})", "")),
      "the context is 1000 tokens, the prompt has at least 1000: shorten it to leave room for one token of answer");
  EXPECT_NE(error_of(Endpoint::kChatCompletions, message_of(std::string(26000, 'a'))).find("at least 200"),
            std::string::npos);
  EXPECT_FALSE(encoded_);
  EXPECT_EQ(error_of(Endpoint::kCompletions, fmt::format(R"({{"prompt":"{:a>999}"}})", "")), "");
}

TEST_F(PromptLength, TextThatTurnsOutTooLongIsEncodedNoFurther) {
  for (const size_t bytes : {1000, 5000, 12000}) {
    EXPECT_NE(error_of(Endpoint::kCompletions, fmt::format(R"({{"prompt":"{}"}})", std::string(bytes, 'a')))
                  .find("has at least 1000:"),
              std::string::npos);
    EXPECT_NE(error_of(Endpoint::kChatCompletions, message_of(std::string(bytes, 'a'))).find("has at least 1000:"),
              std::string::npos);
  }
}

TEST_F(PromptLength, OfAConversationCountsWhatTheTemplateLeaves) {
  const ServedModel trims = make_byte_model(tokenizer_, 1000, "{{ messages[0]['content'] | trim }}");
  EXPECT_EQ(error_of(Endpoint::kChatCompletions, message_of(fmt::format("{:>100000}", "a")), trims), "");
  EXPECT_NE(error_of(Endpoint::kChatCompletions, message_of(std::string(100000, 'a')), trims), "");
}

TEST_F(PromptLength, AConversationTooLongForTheTemplateIsTooLong) {
  std::string doubled = "{% set text = messages[0]['content'] %}";
  for (int i = 0; i < 10; ++i) doubled += "{% set text = text + text %}";
  const ServedModel model = make_byte_model(tokenizer_, 1000, doubled + "{{ text }}");
  EXPECT_NE(error_of(Endpoint::kChatCompletions, message_of(std::string(100000, 'a')), model), "");
  EXPECT_FALSE(encoded_);
}

TEST_F(PromptLength, TokenizeCountsBeyondTheContext) {
  const auto tokens = parse_tokenize_request(fmt::format(R"({{"content":"{:a>5000}"}})", ""), model_, 1000);
  ASSERT_TRUE(tokens) << tokens.error().message;
  EXPECT_EQ(tokens->tokens.size(), 5000u);
}

}  // namespace
}  // namespace spillway
