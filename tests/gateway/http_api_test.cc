// What the API offers beside plain completions, over a real socket.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tests/gateway/ask.h"
#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kText = "/v1/completions";

TEST(HttpApi, AStopStringIsToldToTheLoopOnceAndEndsTheAnswer) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) { self.tokens(work, "one. two. three."); });
  for (const char* const stream : {"true", "false"}) {
    const size_t count = loop.arrived().size() + 1;
    RawClient client(loop.port());
    client.post(kText, fmt::format(R"({{"prompt":"abc","max_tokens":40,"stop":[". t"],"stream":{}}})", stream));
    ASSERT_TRUE(loop.wait_stops(count));
    loop.tokens(loop.arrived().back(), "four", 16);  // on their way
    loop.end(loop.arrived().back(), 20);
    const auto reply = client.read_reply();
    ASSERT_TRUE(reply);
    EXPECT_NE(reply->body.find("\"finish_reason\":\"stop\""), std::string::npos);
    EXPECT_EQ(reply->body.find("our"), std::string::npos);
    if (stream == std::string_view("true")) {
      EXPECT_TRUE(reply->body.ends_with("data: [DONE]\n\n"));
    } else {
      EXPECT_EQ(Json::parse(reply->body)["choices"][0]["text"], "one");
      EXPECT_EQ(Json::parse(reply->body)["usage"]["completion_tokens"], 6);
    }
    EXPECT_EQ(loop.stops().size(), count);
  }
  EXPECT_TRUE(loop.gone().empty());
}

}  // namespace
}  // namespace spillway
