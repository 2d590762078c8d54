#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "tests/gateway/ask.h"
#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

TEST(HttpSlowReader, AStopStringStopsTheNodes) {
  HttpConfig config;
  config.socket_send_bytes = 4096;
  config.stream_tokens_behind_max = 100000;
  FakeLoop loop(says_nothing, config, 100000);
  RawClient client(loop.port(), 4096);
  client.post("/v1/completions", R"({"prompt":"abc","max_tokens":50000,"stream":true,"stop":"STOP"})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  const GenerateRequest work = loop.arrived()[0];
  loop.tokens(work, std::string(5000, 'a'));  // a megabyte of events: far more than the sockets take
  loop.tokens(work, "STOP", 5000);
  ASSERT_TRUE(loop.wait_stops(1)) << "it waits for the client to read";
  loop.error(work, ErrorCode::kPeerLost, "decode 0 died");  // too late to matter
  const auto reply = client.read_reply();
  ASSERT_TRUE(reply);
  EXPECT_TRUE(reply->body.ends_with("data: [DONE]\n\n"));
  EXPECT_NE(reply->body.find("\"finish_reason\":\"stop\""), std::string::npos);
  EXPECT_EQ(reply->body.find("died"), std::string::npos);
  EXPECT_TRUE(loop.gone().empty());
}

TEST(HttpSlowReader, IsCancelledWhenTooFarBehind) {
  HttpConfig config;
  config.stream_tokens_behind_max = 16;
  config.socket_send_bytes = 4096;
  FakeLoop loop(says_nothing, config, 100000);
  RawClient client(loop.port(), 4096);
  client.post("/v1/completions", R"({"prompt":"abc","max_tokens":50000,"stream":true})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  const GenerateRequest work = loop.arrived()[0];
  loop.tokens(work, "a");
  ASSERT_TRUE(client.read_until("\"text\":\"a\""));
  const TimePoint deadline = steady_now() + std::chrono::seconds(10);
  for (uint32_t index = 1; loop.gone().empty() && steady_now() < deadline; ++index) loop.tokens(work, "b", index);
  ASSERT_TRUE(loop.wait_gone(1));
  EXPECT_EQ(loop.gone()[0], work.request);
}

TEST(HttpSlowReader, IsCancelledAndResetWhenItTakesNothingForTooLong) {
  HttpConfig config;
  config.write_timeout = std::chrono::milliseconds(100);
  config.stream_tokens_behind_max = 1000000;
  config.socket_send_bytes = 4096;
  FakeLoop loop(says_nothing, config, 100000);
  RawClient client(loop.port(), 4096);
  client.post("/v1/completions", R"({"prompt":"abc","max_tokens":50000,"stream":true})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  loop.tokens(loop.arrived()[0], std::string(20000, 'a'));
  ASSERT_TRUE(loop.wait_gone(1));
  client.read_rest();
  EXPECT_TRUE(client.was_reset()) << "the kernel still offers it what it does not take";
}

TEST(HttpSlowReader, AnAnswerInOnePieceThatNobodyTakesIsDropped) {
  HttpConfig config;
  config.write_timeout = std::chrono::milliseconds(100);
  config.socket_send_bytes = 4096;
  FakeLoop loop(says_nothing, config, 100000);
  RawClient client(loop.port(), 4096), asks(loop.port());
  client.post("/v1/completions", R"({"prompt":"abc","max_tokens":50000})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  loop.tokens(loop.arrived()[0], std::string(50000, 'a'));
  loop.end(loop.arrived()[0], 50000);
  const std::string alone = "spillway_http_connections{model_name=\"bytes\"} 1\n";
  const TimePoint deadline = steady_now() + std::chrono::seconds(10);
  do {
    asks.get("/metrics");
  } while (asks.read_reply().value_or(RawReply{}).body.find(alone) == std::string::npos && steady_now() < deadline);
  client.read_rest();
  EXPECT_TRUE(client.was_reset());
}

TEST(HttpSlowReader, OneThatReadsSteadilyGetsAllOfALongAnswer) {
  HttpConfig config;
  config.write_timeout = std::chrono::seconds(1);
  config.socket_send_bytes = 32 << 10;
  constexpr size_t kAnswerBytes = 4'000'000, kPiece = 200'000;
  constexpr auto kEach = std::chrono::milliseconds(200);  // so it takes four times the limit
  FakeLoop loop(says("x"), config, 5'000'000);
  RawClient client(loop.port(), 32 << 10);
  client.post("/v1/completions", R"({"max_tokens":1,"echo":true,"prompt":")" + std::string(kAnswerBytes, 'a') + "\"}");
  RawReply head;
  ASSERT_TRUE(client.read_head(head));
  const size_t length = std::stoul(head.headers["content-length"]);
  ASSERT_GT(length, kAnswerBytes);
  const TimePoint begin = steady_now();
  for (size_t read = 0; read < length; read += kPiece) {
    ASSERT_TRUE(client.read_bytes(std::min(kPiece, length - read))) << "reset after " << read << " bytes";
    while (steady_now() < begin + kEach * (1 + read / kPiece)) ASSERT_EQ(fetch(loop, "/health/live").status, 200u);
  }
  EXPECT_GT(steady_now() - begin, 3 * config.write_timeout);
}

TEST(HttpSlowReader, AnswersThatNobodyReadsAreBoundedTogether) {
  HttpConfig config;
  config.socket_send_bytes = 4096;
  config.answer_bytes_total_max = 1'500'000;
  FakeLoop loop(says("x"), config, 5'000'000);
  const std::string large = R"({"max_tokens":1,"echo":true,"prompt":")" + std::string(1'000'000, 'a') + "\"}";
  RawClient stuck(loop.port(), 4096);
  stuck.post("/v1/completions", large);
  RawReply head;
  ASSERT_TRUE(stuck.read_head(head));  // and no more
  EXPECT_EQ(head.status, 200u);
  const RawReply refused = ask(loop, "/v1/completions", large);
  EXPECT_EQ(refused.status, 503u);
  EXPECT_NE(refused.body.find("too many large answers"), std::string::npos);
  EXPECT_EQ(ask(loop, "/v1/completions", R"({"prompt":"a"})").status, 200u) << "small ones are not counted";
  ASSERT_TRUE(stuck.read_bytes(std::stoul(head.headers["content-length"])));
  const TimePoint deadline = steady_now() + std::chrono::seconds(10);
  unsigned status = 503;  // until the server has noticed
  while (status == 503 && steady_now() < deadline) status = ask(loop, "/v1/completions", large).status;
  EXPECT_EQ(status, 200u) << "what was counted is given back";
}

TEST(HttpSlowReader, LogProbabilitiesOfEchoesThatWaitAreBoundedTogether) {
  HttpConfig config;
  config.answer_bytes_total_max = 1'500'000;
  FakeLoop loop(says_nothing, config, 100000);
  const std::string scored =
      R"({"max_tokens":1,"echo":true,"logprobs":5,"stream":true,"prompt":")" + std::string(20000, 'a') + "\"}";
  const auto begin = [&](RawClient& client, size_t index) {
    client.post("/v1/completions", scored);
    EXPECT_TRUE(loop.wait_arrivals(index + 1));
    const GenerateRequest work = loop.arrived()[index];
    const std::vector<TokenLogprob> logprobs(19999 * 6, {'a', -1.0f});  // 960 KB
    loop.server->deliver(StreamScores{work.request, 1, 6, logprobs});
    return work;
  };
  const auto ends_well = [&](RawClient& client, const GenerateRequest& work) {
    loop.tokens(work, "b");
    loop.end(work, 1);
    const auto reply = client.read_reply();
    return reply && reply->body.ends_with("data: [DONE]\n\n");
  };
  RawClient first(loop.port()), second(loop.port()), third(loop.port());
  const GenerateRequest kept = begin(first, 0), given_up = begin(second, 1);
  ASSERT_TRUE(loop.wait_gone(1));
  EXPECT_EQ(loop.gone()[0], given_up.request);
  EXPECT_TRUE(ends_well(first, kept));
  EXPECT_TRUE(ends_well(third, begin(third, 2))) << "what was counted is given back";
}

TEST(HttpSlowReader, WhatAStreamHoldsForItIsBoundedInBytes) {
  HttpConfig config;
  config.stream_tokens_behind_max = 1000000;
  config.stream_bytes_behind_max = 1 << 20;
  config.socket_send_bytes = 4096;
  FakeLoop loop(says_nothing, config, 30000);
  RawClient client(loop.port(), 4096);
  client.post("/v1/completions", R"({"prompt":"abc","max_tokens":29000,"stream":true})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  for (uint32_t index = 0; index < 20000 && loop.gone().empty(); index += 1000) {
    loop.tokens(loop.arrived()[0], std::string(1000, 'a'), index);  // 160 KB of events
    ASSERT_EQ(fetch(loop, "/health/live").status, 200u);            // else one write might take them all
  }
  EXPECT_TRUE(loop.wait_gone(1)) << "it was given 3.2 MB: more than one write and what waits behind it may hold";
}

}  // namespace
}  // namespace spillway
