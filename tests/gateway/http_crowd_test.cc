// All places taken by clients that send too little.
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/gateway/ask.h"
#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

constexpr std::string_view kHalfHeader = "POST /v1/completions HT";
constexpr std::string_view kHalfBody =
    "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
constexpr std::string_view kRefusedAndHalf = "POST /nowhere HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{";

TEST(HttpCrowd, ThoseThatSendTooLittleShutNobodyOut) {
  HttpConfig config;
  config.connections_max = 4;
  config.idle_kept_min = std::chrono::milliseconds(50);
  for (const std::string_view begun : {kHalfHeader, kHalfBody, kRefusedAndHalf}) {
    SCOPED_TRACE(begun);
    FakeLoop loop(says("x"), config);
    std::vector<std::unique_ptr<RawClient>> drips;  // more than the places of all kinds
    for (int client = 0; client < 100; ++client) {
      drips.push_back(std::make_unique<RawClient>(loop.port()));
      drips.back()->send(begun);
    }
    const TimePoint begin = steady_now();
    EXPECT_EQ(fetch(loop, "/health/live").status, 200u);
    RawReply reply;
    do {
      reply = ask(loop, "/v1/completions", R"({"prompt":"a"})");
    } while (reply.status == 503 && steady_now() - begin < std::chrono::seconds(5));  // the others came just now
    EXPECT_EQ(reply.status, 200u);
    EXPECT_LT(steady_now() - begin, std::chrono::seconds(5)) << "they waited for a limit of the others";
  }
}

TEST(HttpCrowd, ARequestUnderWayKeepsItsPlace) {
  HttpConfig config;
  config.connections_max = 4;
  config.idle_kept_min = std::chrono::milliseconds(50);
  FakeLoop loop(says_nothing, config);
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"abc","max_tokens":2,"stream":true})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  std::vector<std::unique_ptr<RawClient>> drips;
  for (int other = 0; other < 100; ++other) {
    drips.push_back(std::make_unique<RawClient>(loop.port()));
    drips.back()->send(kHalfHeader);
  }
  EXPECT_EQ(fetch(loop, "/health/live").status, 200u);
  loop.tokens(loop.arrived()[0], "u");
  loop.end(loop.arrived()[0], 1);
  EXPECT_TRUE(client.read_until("[DONE]"));
  EXPECT_TRUE(loop.gone().empty());
}

}  // namespace
}  // namespace spillway
