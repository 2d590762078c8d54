// /health over a real socket, and how the server drains.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string_view>

#include "tests/gateway/ask.h"
#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kText = "/v1/completions";

TEST(HttpHealth, WhileItDrainsNewRequestsAre503AndThoseUnderWayFinish) {
  FakeLoop loop(says_nothing);
  RawClient streams(loop.port()), idle(loop.port());
  streams.post(kText, R"({"prompt":"abc","max_tokens":40,"stream":true})");
  idle.get("/health/live");
  ASSERT_TRUE(idle.read_reply());
  ASSERT_TRUE(loop.wait_arrivals(1));
  loop.server->drain();
  idle.post(kText, R"({"prompt":"abc","max_tokens":8})");
  const auto refused = idle.read_reply();
  ASSERT_TRUE(refused);
  EXPECT_EQ(refused->status, 503u);
  EXPECT_TRUE(refused->headers.contains("retry-after"));
  EXPECT_EQ(refused->headers.at("connection"), "close");
  EXPECT_NE(Json::parse(refused->body)["error"]["message"].get<std::string>().find("draining"), std::string::npos);
  EXPECT_EQ(fetch(loop, "/health/live").status, 200u);
  EXPECT_EQ(fetch(loop, "/metrics").status, 200u);
  loop.tokens(loop.arrived()[0], "hello");
  loop.end(loop.arrived()[0], 5);
  loop.server->stop("over", std::chrono::seconds(10));
  const auto reply = streams.read_reply();
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->body.ends_with("data: [DONE]\n\n")) << reply->body;
  EXPECT_EQ(loop.arrived().size(), 1u);
}

TEST(HttpHealth, ReadinessGivesItsReason) {
  HttpConfig config;
  config.loop_silence_max = std::chrono::milliseconds(200);
  FakeLoop loop(says("x"), config);
  EXPECT_EQ(Json::parse(fetch(loop, "/health/live").body)["status"], "ok");
  GatewayStatus status;
  status.health.reasons = {"no decode node is connected", "decode 1 is draining"};
  loop.server->publish(status);
  RawReply reply = fetch(loop, "/health/ready");
  EXPECT_EQ(reply.status, 503u);
  EXPECT_EQ(reply.headers.at("retry-after"), "1");
  EXPECT_EQ(Json::parse(reply.body)["reason"], "no decode node is connected");
  EXPECT_EQ(Json::parse(reply.body)["reasons"], (Json{"no decode node is connected", "decode 1 is draining"}));
  status.health = {.degraded = {"prefill 1 is draining"}};
  loop.server->publish(status);
  reply = fetch(loop, "/health");
  EXPECT_EQ(reply.status, 200u);
  EXPECT_FALSE(reply.headers.contains("retry-after"));
  EXPECT_EQ(Json::parse(reply.body), (Json{{"status", "ok"}, {"degraded", {"prefill 1 is draining"}}}));
  const TimePoint deadline = steady_now() + std::chrono::seconds(10);
  while ((reply = fetch(loop, "/health/ready")).status == 200 && steady_now() < deadline) continue;
  EXPECT_EQ(reply.status, 503u);
  EXPECT_NE(reply.body.find("silent"), std::string::npos);
  EXPECT_EQ(fetch(loop, "/health/live").status, 200u);
}

}  // namespace
}  // namespace spillway
