#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "gateway/openai_request.h"
#include "tests/gateway/byte_model.h"

namespace spillway {
namespace {

using Tokens = std::vector<TokenId>;
constexpr TokenId kBegin = ByteTokenizer::kEndOfText;  // <|endoftext|>

class BeginOfSequence : public ::testing::Test {
 protected:
  Tokens prompt(Endpoint endpoint, std::string_view body, std::string_view chat_template = kTestTemplate) const {
    const ServedModel model = make_byte_model(tokenizer_, 1000, chat_template);
    const auto parsed = parse_api_request(endpoint, body, model, 1000, 1);
    EXPECT_TRUE(parsed) << parsed.error().message;
    return parsed ? parsed->work.prompt : Tokens{};
  }
  Tokens chat(std::string_view chat_template, std::string_view content = "a") const {
    return prompt(Endpoint::kChatCompletions,
                  R"({"messages":[{"role":"user","content":")" + std::string(content) + R"("}]})", chat_template);
  }
  Tokens tokenized(std::string_view body) const {
    const auto parsed =
        parse_tokenize_request(body, make_byte_model(tokenizer_, 1000, "{{ messages[0].content }}"), 1000);
    EXPECT_TRUE(parsed) << parsed.error().message;
    return parsed ? parsed->tokens : Tokens{};
  }
  ByteTokenizer tokenizer_;
};

TEST_F(BeginOfSequence, TextPromptsBeginWithItOnceAndTokenIdsStayAsTheyAre) {
  tokenizer_.adds_begin = true;
  EXPECT_EQ(prompt(Endpoint::kCompletions, R"({"prompt":"a"})"), (Tokens{kBegin, 'a'}));
  EXPECT_EQ(prompt(Endpoint::kCompletions, R"({"prompt":"<|endoftext|>a"})"), (Tokens{kBegin, 'a'}));
  EXPECT_EQ(prompt(Endpoint::kCompletions, R"({"prompt":""})"), (Tokens{kBegin}));
  EXPECT_EQ(prompt(Endpoint::kCompletions, R"({"prompt":[97]})"), (Tokens{'a'}));
  tokenizer_.adds_begin = false;
  EXPECT_EQ(prompt(Endpoint::kCompletions, R"({"prompt":"a"})"), (Tokens{'a'}));
}

TEST_F(BeginOfSequence, ChatsBeginWithItOnceWhetherTheTemplateWritesItOrNot) {
  const std::string_view writes = "{{ bos_token }}{{ messages[0].content }}", does_not = "{{ messages[0].content }}";
  tokenizer_.adds_begin = true;
  EXPECT_EQ(chat(writes), (Tokens{kBegin, 'a'}));
  EXPECT_EQ(chat(does_not), (Tokens{kBegin, 'a'}));
  const Tokens spelled = chat(does_not, "<|endoftext|>a");  // a message's is text, and stands for nothing
  EXPECT_EQ(spelled.front(), kBegin);
  EXPECT_EQ(spelled[1], TokenId{'<'});
  EXPECT_EQ(spelled.size(), 1 + std::string_view("<|endoftext|>a").size());
  tokenizer_.adds_begin = false;
  EXPECT_EQ(chat(writes), (Tokens{kBegin, 'a'}));
  EXPECT_EQ(chat(does_not), (Tokens{'a'}));
}

TEST_F(BeginOfSequence, TokenizeAddsItOnlyWhereAskedAndOnlyIfTheModelDoes) {
  tokenizer_.adds_begin = true;
  EXPECT_EQ(tokenized(R"({"content":"a"})"), (Tokens{'a'}));
  EXPECT_EQ(tokenized(R"({"content":"a","add_special":true})"), (Tokens{kBegin, 'a'}));
  EXPECT_EQ(tokenized(R"({"messages":[{"role":"user","content":"a"}]})"), (Tokens{kBegin, 'a'}));
  tokenizer_.adds_begin = false;
  EXPECT_EQ(tokenized(R"({"content":"a","add_special":true})"), (Tokens{'a'}));
}

TEST_F(BeginOfSequence, APublicPrefixBeginsAsThePromptsThatItIsFor) {
  tokenizer_.adds_begin = true;
  const auto prefix = parse_public_prefix(R"({"prompt":"a"})", make_byte_model(tokenizer_));
  ASSERT_TRUE(prefix) << prefix.error().message;
  EXPECT_EQ(*prefix, (Tokens{kBegin, 'a'}));
}

}  // namespace
}  // namespace spillway
