#include <gtest/gtest.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

struct Refusal {
  const char* name;
  std::string bytes;
  unsigned status;
  const char* code;
};

std::string typed_post_head(std::string_view type, std::string_view headers) {
  return "POST /v1/completions HTTP/1.1\r\nHost: t\r\n" + std::string(type) + std::string(headers) + "\r\n";
}
std::string post_head(std::string_view headers) {
  return typed_post_head("Content-Type: application/json; charset=utf-8\r\n", headers);
}

TEST(HttpLimits, EachRefusalIsAnErrorObjectWithItsStatus) {
  const std::string big_chunk = "100000\r\n" + std::string(0x100000, ' ') + "\r\n";
  std::string chunked = post_head("Transfer-Encoding: chunked\r\n");
  for (int chunk = 0; chunk < 9; ++chunk) chunked += big_chunk;
  const std::vector<Refusal> refusals = {
      {"no_such_path", "GET /v2 HTTP/1.1\r\nHost: t\r\n\r\n", 404, "not_found"},
      {"no_such_model", "GET /v1/models/other HTTP/1.1\r\nHost: t\r\n\r\n", 404, "model_not_found"},
      {"wrong_method", "GET /v1/completions HTTP/1.1\r\nHost: t\r\n\r\n", 405, "method_not_allowed"},
      {"get_of_a_post", "PUT /v1/models HTTP/1.1\r\nHost: t\r\n\r\n", 405, "method_not_allowed"},
      {"unknown_method", "BREW /v1/models HTTP/1.1\r\nHost: t\r\n\r\n", 405, "method_not_allowed"},
      {"not_json_type", typed_post_head("Content-Type: text/plain\r\n", "Content-Length: 2\r\n") + "{}", 415,
       "unsupported_media_type"},
      {"form_of_curl",
       typed_post_head("Content-Type: application/x-www-form-urlencoded\r\n", "Content-Length: 2\r\n") + "{}", 415,
       "unsupported_media_type"},
      {"no_type", typed_post_head("", "Content-Length: 14\r\n") + R"({"prompt":"a"})", 415, "unsupported_media_type"},
      {"empty_type", typed_post_head("Content-Type:\r\n", "Content-Length: 2\r\n") + "{}", 415,
       "unsupported_media_type"},
      {"empty_body", post_head("Content-Length: 0\r\n"), 400, "invalid_json"},
      {"body_too_large", post_head("Content-Length: 9437184\r\n") + std::string(9 << 20, ' '), 413, "body_too_large"},
      {"body_claimed_too_large", post_head("Content-Length: 99999999999\r\n"), 413, "body_too_large"},
      {"chunks_too_large", chunked + "0\r\n\r\n", 413, "body_too_large"},
      {"header_too_large", "GET /v1/models HTTP/1.1\r\nX: " + std::string(200 << 10, 'a') + "\r\n\r\n", 431,
       "header_too_large"},
      {"many_headers",
       [] {
         std::string head = "GET /v1/models HTTP/1.1\r\n";
         for (int line = 0; line < 4000; ++line) head += "X-Line: 1\r\n";
         return head + "\r\n";
       }(),
       431, "header_too_large"},
      {"not_http", "hello there\r\n\r\n", 400, "malformed_http"},
      {"tls_hello", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(100, 'x'), 400,
       "malformed_http"},
      {"bad_version", "GET / HTTP/9.9\r\n\r\n", 400, "malformed_http"},
      {"negative_length", post_head("Content-Length: -1\r\n"), 400, "malformed_http"},
      {"two_lengths", post_head("Content-Length: 1\r\nContent-Length: 2\r\n") + "ab", 400, "malformed_http"},
      {"length_and_chunks", post_head("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n") + "0\r\n\r\n", 400,
       "malformed_http"},
      {"bad_chunk", post_head("Transfer-Encoding: chunked\r\n") + "zz\r\n", 400, "malformed_http"},
      {"negative_chunk", post_head("Transfer-Encoding: chunked\r\n") + "-1\r\n", 400, "malformed_http"},
      {"zero_in_header", std::string("GET /v1/models HTTP/1.1\r\nX: a\0b\r\n\r\n", 35), 400, "malformed_http"},
  };
  FakeLoop loop(says("x"));
  for (const Refusal& refusal : refusals) {
    SCOPED_TRACE(refusal.name);
    RawClient client(loop.port());
    client.send(refusal.bytes);  // may fail once the server has answered
    const auto reply = client.read_reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->status, refusal.status);
    EXPECT_EQ(Json::parse(reply->body)["error"]["code"], refusal.code);
    EXPECT_EQ(reply->headers.at("content-type"), "application/json");
    EXPECT_EQ(reply->headers.contains("allow"), refusal.status == 405);
    EXPECT_EQ(reply->body.find("add the header Content-Type: application/json") != std::string::npos,
              refusal.status == 415);
  }
  EXPECT_TRUE(loop.arrived().empty());
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(client.read_reply().value_or(RawReply{}).status, 200u) << "the server survives them all";
}

TEST(HttpLimits, HeadOfAnUnknownPathLeavesNoBodyBehind) {
  FakeLoop loop(says("x"));
  RawClient client(loop.port());
  client.send("HEAD /v2 HTTP/1.1\r\nHost: t\r\n\r\n");
  RawReply head;
  ASSERT_TRUE(client.read_head(head));
  EXPECT_EQ(head.status, 404u);
  client.send("GET /health/live HTTP/1.1\r\nHost: t\r\n\r\n");
  EXPECT_EQ(client.read_reply().value_or(RawReply{}).status, 200u) << "what follows is read as the next answer";
}

TEST(HttpLimits, SlowRequestsAreToldAndSilentOnesClosed) {
  HttpConfig config;
  config.request_timeout = std::chrono::milliseconds(100);
  FakeLoop loop(says("x"), config);
  RawClient silent(loop.port()), half_header(loop.port()), half_body(loop.port());
  half_header.send("POST /v1/completions HT");
  half_body.send(post_head("Content-Length: 100\r\n") + "{");
  EXPECT_TRUE(silent.at_end());
  for (RawClient* const slow : {&half_header, &half_body}) {
    const auto reply = slow->read_reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->status, 408u);
    EXPECT_EQ(Json::parse(reply->body)["error"]["code"], "request_timeout");
    EXPECT_EQ(reply->body.find("the header") != std::string::npos, slow == &half_header);
    EXPECT_EQ(reply->headers.at("connection"), "close");
    EXPECT_FALSE(reply->headers.at("x-request-id").empty());
    EXPECT_TRUE(slow->at_end());
  }
  RawClient kept(loop.port());
  kept.get("/health/live");
  ASSERT_TRUE(kept.read_reply());
  EXPECT_TRUE(kept.at_end()) << "idle between requests: nothing to be told";
}

TEST(HttpLimits, AHeaderHasLessTimeThanABody) {
  HttpConfig config;
  config.header_timeout = std::chrono::milliseconds(100);
  FakeLoop loop(says("x"), config);
  RawClient silent(loop.port()), half_header(loop.port()), half_body(loop.port());
  half_header.send("POST /v1/completions HT");
  half_body.send(post_head("Content-Length: 14\r\n") + "{");
  const auto reply = half_header.read_reply();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->status, 408u);
  EXPECT_NE(reply->body.find("the header was not complete within 0.1 s"), std::string::npos) << reply->body;
  half_body.send(R"("prompt":"a"})");
  EXPECT_EQ(half_body.read_reply().value_or(RawReply{}).status, 200u);
  silent.get("/health/live");
  EXPECT_EQ(silent.read_reply().value_or(RawReply{}).status, 200u) << "its time begins with its first byte";
}

TEST(HttpLimits, AByteAtATimeBuysNoTime) {
  HttpConfig config;
  config.request_timeout = std::chrono::milliseconds(300);
  FakeLoop loop(says("x"), config);
  std::vector<std::unique_ptr<RawClient>> drips;
  for (int client = 0; client < 50; ++client) drips.push_back(std::make_unique<RawClient>(loop.port()));
  const std::string head = "GET /v1/models HTTP/1.1\r\nX-Slow: ";
  const TimePoint deadline = steady_now() + std::chrono::seconds(10);
  size_t sent = 0, open = drips.size();
  for (; open > 0 && steady_now() < deadline; ++sent) {
    open = 0;
    for (const auto& drip : drips) open += drip->send(std::string(1, sent < head.size() ? head[sent] : 'a')) ? 1 : 0;
    RawClient other(loop.port());
    other.post("/v1/completions", R"({"prompt":"a"})");
    EXPECT_EQ(other.read_reply().value_or(RawReply{}).status, 200u);
  }
  EXPECT_EQ(open, 0u);
  EXPECT_EQ(drips[0]->read_reply().value_or(RawReply{}).status, 408u);
}

TEST(HttpLimits, ASilentConnectionMakesRoom) {
  HttpConfig config;
  config.connections_max = 4;
  config.idle_kept_min = {};
  FakeLoop loop(says("x"), config);
  std::vector<std::unique_ptr<RawClient>> silent;
  for (int client = 0; client < 100; ++client) silent.push_back(std::make_unique<RawClient>(loop.port()));
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"a"})");
  EXPECT_EQ(client.read_reply().value_or(RawReply{}).status, 200u);
  EXPECT_TRUE(silent[0]->at_end());
}

TEST(HttpLimits, ANodeLostBehindAStopStringLeavesTheAnswerWhole) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) {
    self.tokens(work, "one. two");
    self.error(work, ErrorCode::kPeerLost, "decode 0 died");
  });
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"abc","stop":". t"})");
  const auto reply = client.read_reply();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->status, 200u);
  const Json body = Json::parse(reply->body);
  EXPECT_EQ(body["choices"][0]["text"], "one");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
}

TEST(HttpLimits, BodiesInMemoryAreBoundedTogether) {
  HttpConfig config;
  config.body_bytes_total_max = 1000;
  FakeLoop loop(says("x"), config);
  const auto ask = [&](size_t bytes) {
    RawClient client(loop.port());
    client.post("/v1/completions", R"({"prompt":"a"})" + std::string(bytes - 14, ' '));
    return client.read_reply().value_or(RawReply{}).status;
  };
  EXPECT_EQ(ask(1000), 200u);
  EXPECT_EQ(ask(1001), 503u);
  RawClient slow(loop.port());
  slow.send(post_head("Content-Length: 901\r\n") + R"({"prompt":"a"})" + std::string(900 - 14, ' '));
  const TimePoint deadline = steady_now() + std::chrono::seconds(10);
  while (ask(101) == 200u && steady_now() < deadline) continue;  // until its 900 bytes are read
  EXPECT_EQ(ask(101), 503u);
  EXPECT_EQ(ask(100), 200u);
  slow.send(" ");
  EXPECT_EQ(slow.read_reply().value_or(RawReply{}).status, 200u);
  EXPECT_EQ(ask(1000), 200u) << "what was counted is given back";
}

TEST(HttpLimits, ABodyThatDoesNotComeHoldsNoMemory) {
  HttpConfig config;
  config.body_bytes_max = config.body_bytes_total_max = 1000;
  FakeLoop loop(says("x"), config);
  std::vector<std::unique_ptr<RawClient>> idle;
  for (const char* const length : {"Transfer-Encoding: chunked\r\n", "Content-Length: 1000\r\n"}) {
    for (int client = 0; client < 8; ++client) {
      idle.push_back(std::make_unique<RawClient>(loop.port()));
      idle.back()->send(post_head("Expect: 100-continue\r\n" + std::string(length)));
      RawReply interim;
      ASSERT_TRUE(idle.back()->read_head(interim));
      EXPECT_EQ(interim.status, 100u);
    }
  }
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"a"})" + std::string(900, ' '));
  EXPECT_EQ(client.read_reply().value_or(RawReply{}).status, 200u);
}

TEST(HttpLimits, AWaitingRequestOutlivesTheRequestTimeout) {
  HttpConfig config;
  config.request_timeout = config.write_timeout = std::chrono::milliseconds(50);
  FakeLoop loop(says_nothing, config);
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"a","stream":true})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  const GenerateRequest work = loop.arrived()[0];
  const auto outlast_timeouts = [&] {
    RawClient idle(loop.port());
    EXPECT_TRUE(idle.at_end());  // closed by the same limit, later than ours began
  };
  outlast_timeouts();
  loop.tokens(work, "u");
  ASSERT_TRUE(client.read_until("\"text\":\"u\""));
  outlast_timeouts();
  loop.tokens(work, "v", 1);
  loop.end(work, 2);
  EXPECT_TRUE(client.read_until("[DONE]"));
  EXPECT_TRUE(loop.gone().empty());
}

TEST(HttpLimits, ExpectedContinueIsGivenOnlyToBodiesThatFit) {
  FakeLoop loop(says("x"));
  RawClient good(loop.port());
  good.send(post_head("Expect: 100-continue\r\nContent-Length: 14\r\n"));
  RawReply interim;
  ASSERT_TRUE(good.read_head(interim));
  EXPECT_EQ(interim.status, 100u);
  good.send(R"({"prompt":"a"})");
  EXPECT_EQ(good.read_reply().value_or(RawReply{}).status, 200u);

  RawClient huge(loop.port());
  huge.send(post_head("Expect: 100-continue\r\nContent-Length: 99999999\r\n"));
  EXPECT_EQ(huge.read_reply().value_or(RawReply{}).status, 413u);
}

TEST(HttpLimits, TooMuchBesideARequestShutsTheClientOut) {
  FakeLoop loop(says_nothing);
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"abc","stream":true})");
  ASSERT_TRUE(loop.wait_arrivals(1));
  client.send(std::string(64 << 10, 'x'));
  EXPECT_TRUE(loop.wait_gone(1));
}

TEST(HttpMetrics, ValuesAreThoseOfTheLoopAndOfTheAnswers) {
  FakeLoop loop(says("xyz"));
  GatewayStatus status;
  status.health = {};
  status.counters.requests = 7;
  status.counters.errors[ErrorCode::kPeerLost] = 2;
  status.counters.blocks_total = 40;
  status.counters.blocks_free = 39;
  status.counters.prefill.blocks_used = 1;
  status.counters.decode.blocks_free = 30;
  status.counters.decode.blocks_cached = 9;
  status.counters.decode.totals = {.steps = 5,
                                   .step_tokens = 18,
                                   .step_sequences = 17,
                                   .transfers = 3,
                                   .transfer_failures = 2,
                                   .transfer_bytes = 12 << 20};
  status.counters.decode_nodes = 3;
  status.counters.preemption = {5, 321};
  loop.server->publish(status);
  RawClient client(loop.port());
  client.post("/v1/completions", R"({"prompt":"a","max_tokens":3})");
  ASSERT_EQ(client.read_reply().value_or(RawReply{}).status, 200u);
  client.get("/metrics");
  const std::string page = client.read_reply().value_or(RawReply{}).body;

  for (const char* const line :
       {"spillway_requests_total{model_name=\"bytes\"} 7\n",
        "spillway_request_errors_total{reason=\"peer_lost\",model_name=\"bytes\"} 2\n",
        "spillway_kv_blocks{role=\"decode\",tier=\"device\",state=\"cached\",model_name=\"bytes\"} 9\n",
        "spillway_kv_blocks{role=\"decode\",tier=\"device\",state=\"free\",model_name=\"bytes\"} 30\n",
        "spillway_kv_blocks{role=\"prefill\",tier=\"device\",state=\"used\",model_name=\"bytes\"} 1\n",
        "spillway_kv_blocks_free{model_name=\"bytes\"} 39\n",
        "spillway_steps_total{role=\"decode\",model_name=\"bytes\"} 5\n",
        "spillway_steps_total{role=\"prefill\",model_name=\"bytes\"} 0\n",
        "spillway_step_sequences_total{role=\"decode\",model_name=\"bytes\"} 17\n",
        "spillway_step_tokens_total{role=\"decode\",model_name=\"bytes\"} 18\n",
        "spillway_kv_transfers_total{model_name=\"bytes\"} 3\n",
        "spillway_kv_transfer_failures_total{model_name=\"bytes\"} 2\n",
        "spillway_kv_transfer_bytes_total{model_name=\"bytes\"} 12582912\n",
        "spillway_preemptions_total{model_name=\"bytes\"} 5\n",
        "spillway_recomputed_tokens_total{model_name=\"bytes\"} 321\n",
        "spillway_inter_token_latency_seconds_count{model_name=\"bytes\"} 2\n",
        "spillway_nodes{role=\"decode\",model_name=\"bytes\"} 3\n",
        "spillway_ready{model_name=\"bytes\"} 1\n",
        "spillway_http_responses_total{status=\"200\",model_name=\"bytes\"} 1\n",
        "spillway_http_connections{model_name=\"bytes\"} 1\n",
        "spillway_time_to_first_token_seconds_count{model_name=\"bytes\"} 1\n",
        "spillway_time_to_first_token_seconds_bucket{model_name=\"bytes\",le=\"0.025\"} 1\n",
        "spillway_time_to_first_token_seconds_bucket{model_name=\"bytes\",le=\"0.01\"} 0\n",
        "spillway_time_per_output_token_seconds_sum{model_name=\"bytes\"} 0.03\n"})
    EXPECT_NE(page.find(line), std::string::npos) << line << page;
}

TEST(HttpMetrics, TheFirstTokenIsObservedWhenItComes) {
  FakeLoop loop([](FakeLoop& from, const GenerateRequest& request) { from.tokens(request, "xy"); });
  RawClient client(loop.port()), asks(loop.port());
  client.post("/v1/completions", R"({"prompt":"a","stream":true})");
  ASSERT_TRUE(client.read_until("\"text\":\"y\""));
  asks.get("/metrics");
  const std::string page = asks.read_reply().value_or(RawReply{}).body;
  for (const char* const line : {"spillway_time_to_first_token_seconds_count{model_name=\"bytes\"} 1\n",
                                 "spillway_time_to_first_token_seconds_sum{model_name=\"bytes\"} 0.02\n",
                                 "spillway_request_seconds_count{model_name=\"bytes\"} 0\n"})
    EXPECT_NE(page.find(line), std::string::npos) << line << page;
}

}  // namespace
}  // namespace spillway
