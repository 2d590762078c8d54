#include "gateway/chat_messages.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "gateway/openai_request.h"
#include "tests/gateway/byte_model.h"

namespace spillway {
namespace {

class ChatMessages : public ::testing::Test {
 protected:
  Parsed<ApiRequest> parse(std::string_view body) const {
    return parse_api_request(Endpoint::kChatCompletions, body, model_, 1000, 99);
  }

  ByteTokenizer tokenizer_;
  ServedModel model_ = make_byte_model(tokenizer_);
};

TEST_F(ChatMessages, UnknownMembersInsideFieldsAreNamedOnce) {
  const auto parsed = parse(R"({"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":true},
      "messages":[{"role":"user","name":"n","content":[{"type":"text","text":"a","cache_control":{}}]},
      {"role":"assistant","content":"b","name":"m","refusal":null,"audio":null,"tool_calls":[],"a,\"b":1}]})");
  ASSERT_TRUE(parsed) << parsed.error().message;
  EXPECT_EQ(parsed->ignored, (std::vector<std::string>{"stream_options.include_obfuscation", "messages[].name",
                                                       "messages[].content[].cache_control", "messages[].a??b"}));
  std::string members;
  for (int index = 0; index < 50; ++index) members += fmt::format(",\"zz{}\":1", index);
  const auto many = parse(fmt::format(R"({{"wings":1,"messages":[{{"role":"user","content":"a"{}}}]}})", members));
  ASSERT_TRUE(many);
  EXPECT_EQ(many->ignored.size(), 8u);
  const auto tokens = parse_tokenize_request(R"({"messages":[{"role":"user","content":"a","x":1}]})", model_, 1000);
  ASSERT_TRUE(tokens);
  EXPECT_EQ(tokens->ignored, std::vector<std::string>{"messages[].x"});
}

}  // namespace
}  // namespace spillway
