#include "gateway/http_server.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <future>
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

constexpr std::string_view kText = "/v1/completions", kChat = "/v1/chat/completions";
constexpr std::string_view kWhole = R"({"prompt":"abc","max_tokens":8})";
constexpr std::string_view kStream = R"({"prompt":"abc","max_tokens":8,"stream":true})";

TEST(HttpServer, StreamsTokensAndEndsWithDone) {
  FakeLoop loop(says("hello"));
  const RawReply reply = ask(loop, kChat, R"({"messages":[{"role":"user","content":"hi"}],"stream":true,
      "stream_options":{"include_usage":true}})");
  EXPECT_EQ(reply.status, 200u);
  EXPECT_TRUE(reply.headers.at("content-type").starts_with("text/event-stream"));
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
  std::string text;
  size_t begin = 0, chunks = 0;
  for (size_t end; (end = reply.body.find("\n\n", begin)) != std::string::npos; begin = end + 2) {
    const std::string payload = reply.body.substr(begin + 6, end - begin - 6);
    if (payload == "[DONE]") break;
    const Json chunk = Json::parse(payload);
    ++chunks;
    for (const Json& choice : chunk["choices"]) text += choice["delta"].value("content", "");
  }
  EXPECT_EQ(chunks, 7u);  // five tokens, the finish, the usage
  EXPECT_EQ(text, "hello");
}

TEST(HttpServer, AnswersInOnePieceWithUsageAndTimings) {
  FakeLoop loop(says("xyz"));
  const RawReply reply = ask(loop, kText, R"({"prompt":"abc","logit_digests":true,"seed":5,"temperature":0.25})");
  ASSERT_EQ(reply.status, 200u) << reply.body;
  const Json body = Json::parse(reply.body);
  EXPECT_EQ(body["object"], "text_completion");
  EXPECT_EQ(body["model"], "bytes");
  EXPECT_EQ(body["choices"][0]["text"], "xyz");
  EXPECT_EQ(body["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(body["usage"]["prompt_tokens"], 3);
  EXPECT_EQ(body["usage"]["completion_tokens"], 3);
  EXPECT_EQ(body["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
  EXPECT_EQ(body["timings"]["ttft_ms"], 20.0);
  EXPECT_EQ(body["token_ids"], Json({'x', 'y', 'z'}));
  EXPECT_EQ(body["logits_digests"].size(), 3u);
  const GenerateRequest work = loop.arrived().at(0);
  EXPECT_EQ(work.prompt, (std::vector<TokenId>{'a', 'b', 'c'}));
  EXPECT_EQ(work.sampling.seed, 5u);
  EXPECT_EQ(work.sampling.temperature, 0.25f);
  EXPECT_TRUE(work.digest_logits);
  EXPECT_EQ(work.request.boot, BootId{0xb007});
}

TEST(HttpServer, EveryFailureBeforeTheFirstTokenHasItsStatus) {
  struct Case {
    ErrorCode code;
    unsigned status;
    bool retry_after;
  };
  for (const Case& one : {Case{ErrorCode::kQueueFull, 429, true},
                          {ErrorCode::kUnavailable, 503, true},
                          {ErrorCode::kPeerLost, 503, true},
                          {ErrorCode::kNoSpace, 503, true},
                          {ErrorCode::kDeadline, 504, false},
                          {ErrorCode::kTooLong, 400, false},
                          {ErrorCode::kInvalidArgument, 400, false},
                          {ErrorCode::kInternal, 500, false},
                          {ErrorCode::kCorrupt, 500, false}}) {
    FakeLoop loop(
        [&](FakeLoop& self, const GenerateRequest& work) { self.error(work, one.code, "prefill 0 says why"); });
    for (const std::string_view body : {kWhole, kStream}) {
      const RawReply reply = ask(loop, kText, body);
      SCOPED_TRACE(error_name(one.code));
      EXPECT_EQ(reply.status, one.status);
      EXPECT_EQ(reply.headers.contains("retry-after"), one.retry_after);
      const Json error = Json::parse(reply.body)["error"];
      EXPECT_NE(error["message"].get<std::string>().find("prefill 0 says why"), std::string::npos);
      const bool names_request =
          error["message"].get<std::string>().find(reply.headers.at("x-request-id")) != std::string::npos;
      EXPECT_EQ(names_request, one.status == 500);
    }
    EXPECT_TRUE(loop.gone().empty());
  }
}

TEST(HttpServer, FailureAfterTokensIsTheLastEventAndCloses) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) {
    self.tokens(work, "ab");
    self.error(work, ErrorCode::kPeerLost, "decode 0 died");
  });
  RawClient client(loop.port());
  client.post(kText, kStream);
  const auto reply = client.read_reply();
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->status, 200u);
  EXPECT_EQ(reply->body.find("[DONE]"), std::string::npos);
  const size_t at = reply->body.rfind("data: ");
  EXPECT_EQ(Json::parse(reply->body.substr(at + 6))["error"]["message"], "decode 0 died");
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, ClientThatLeavesWhileWaitingIsToldAtOnce) {
  FakeLoop loop(says_nothing);
  for (const std::string_view body : {kWhole, kStream})
    for (int way = 0; way < 3; ++way) {
      RawClient client(loop.port());
      client.post(kText, body);
      const size_t count = loop.gone().size() + 1;
      ASSERT_TRUE(loop.wait_arrivals(count));
      way == 0 ? client.close() : way == 1 ? client.reset() : client.half_close();
      ASSERT_TRUE(loop.wait_gone(count));
      EXPECT_EQ(loop.gone().back(), loop.arrived().back().request);
    }
}

TEST(HttpServer, ClientThatLeavesInTheStreamIsToldAtOnce) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) { self.tokens(work, "a"); });
  RawClient client(loop.port());
  client.post(kText, kStream);
  ASSERT_TRUE(client.read_until("\"text\":\"a\""));
  client.close();
  ASSERT_TRUE(loop.wait_gone(1));
  loop.tokens(loop.arrived()[0], "bc", 1);  // late: ignored
  loop.end(loop.arrived()[0], 3);
  EXPECT_EQ(fetch(loop, "/health/live").status, 200u);
}

TEST(HttpServer, ClientThatLeavesBeforeItsPromptIsReadNeverReachesTheLoop) {
  FakeLoop loop(says("x"));
  std::promise<void> encoding, left;
  loop.tokenizer.before_encode = [&](std::string_view text) {
    if (text != "slow") return;
    encoding.set_value();
    left.get_future().wait();
  };
  RawClient client(loop.port());
  client.post(kText, R"({"prompt":"slow"})");
  encoding.get_future().wait();
  client.close();
  // While one prompt is being read, others are answered.
  EXPECT_EQ(ask(loop, kText, kWhole).status, 200u);
  left.set_value();
  EXPECT_EQ(ask(loop, kText, kWhole).status, 200u);
  EXPECT_EQ(loop.arrived().size(), 2u);
  EXPECT_TRUE(loop.gone().empty());
}

TEST(HttpServer, AnsweredRequestsAreNeverCancelled) {
  FakeLoop loop(says("x"));
  for (int repetition = 0; repetition < 20; ++repetition) EXPECT_EQ(ask(loop, kText, kStream).status, 200u);
  EXPECT_TRUE(loop.gone().empty());
}

TEST(HttpServer, ConnectionIsKeptForTheNextRequest) {
  FakeLoop loop(says("x"));
  RawClient client(loop.port());
  for (const std::string_view body : {kWhole, kStream, std::string_view("{"), kWhole}) {
    client.post(kText, body);
    const auto reply = client.read_reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->status, body == "{" ? 400u : 200u);
    client.get("/v1/models");
    ASSERT_TRUE(client.read_reply());
  }
  client.post(kText, kWhole, "Connection: close\r\n");
  EXPECT_TRUE(client.read_reply());
  EXPECT_TRUE(client.at_end());
}

TEST(HttpServer, PipelinedRequestsAreAnsweredInOrder) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) {
    self.tokens(work, std::string(1, static_cast<char>(work.prompt[0])));
    self.end(work, 1);
  });
  RawClient client(loop.port());
  std::string bytes;
  for (const char letter : std::string_view("uvw")) {
    const std::string body = std::string(R"({"prompt":")") + letter + "\"}";
    bytes += "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: " +
             std::to_string(body.size()) + "\r\n\r\n" + body;
  }
  client.send(bytes);
  for (const std::string text : {"u", "v", "w"}) {
    const auto reply = client.read_reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(Json::parse(reply->body)["choices"][0]["text"], text);
  }
}

TEST(HttpServer, FullMailboxIs503AndClientGoneStillArrives) {
  HttpConfig config;
  config.connections_max = 2;
  FakeLoop loop(says_nothing, config);
  RawClient client(loop.port());
  client.post(kText, kWhole);
  ASSERT_TRUE(loop.wait_arrivals(1));
  loop.pause();
  const RequestId stranger{BootId{1}, 1};
  size_t strangers = 0;
  while (loop.inputs.try_push(ClientGone{stranger})) ++strangers;
  EXPECT_EQ(strangers, loop.inputs.capacity());
  const RawReply refused = ask(loop, kText, kWhole);
  EXPECT_EQ(refused.status, 503u);
  EXPECT_TRUE(refused.headers.contains("retry-after"));
  client.close();
  while (fetch(loop, "/metrics").body.find("spillway_http_connections{model_name=\"bytes\"} 1\n") == std::string::npos)
    continue;  // until the server has seen it leave: the fetch itself is the one
  loop.resume();
  ASSERT_TRUE(loop.wait_gone(strangers + 1));
  EXPECT_EQ(loop.gone().back(), loop.arrived()[0].request);
}

TEST(HttpServer, ConnectionsOverTheLimitMayAskForHealthOnly) {
  HttpConfig config;
  config.connections_max = 1;
  FakeLoop loop(says("x"), config);
  RawClient first(loop.port());
  first.get("/health/live");
  ASSERT_TRUE(first.read_reply());
  EXPECT_EQ(ask(loop, kText, kWhole).status, 503u);
  EXPECT_EQ(fetch(loop, "/health/ready").status, 200u);
  EXPECT_EQ(fetch(loop, "/metrics").status, 200u);
  first.post(kText, kWhole);
  EXPECT_EQ(first.read_reply().value_or(RawReply{}).status, 200u);
}

TEST(HttpServer, ShorterContextOfTheNodesCounts) {
  FakeLoop loop(says("x"));
  GatewayStatus status;
  status.max_model_len = 10;
  loop.server->publish(status);
  const RawReply reply = ask(loop, kText, R"({"prompt":"0123456789"})");
  EXPECT_EQ(reply.status, 400u);
  EXPECT_EQ(error_code_of(reply), "context_length_exceeded");
  EXPECT_EQ(Json::parse(fetch(loop, "/v1/models").body)["data"][0]["max_model_len"], 10);
}

TEST(HttpServer, RequestNamesAreEchoedOnlyWhereHarmless) {
  FakeLoop loop(says("x"));
  const auto name_for = [&](const std::string& sent) {
    RawClient client(loop.port());
    client.send("GET /v1/models HTTP/1.1\r\nHost: t\r\nX-Request-Id: " + sent + "\r\n\r\n");
    return client.read_reply().value_or(RawReply{}).headers["x-request-id"];
  };
  EXPECT_EQ(name_for("trace-1.a:b_C"), "trace-1.a:b_C");
  const std::string own = name_for("a b\"<script>");
  EXPECT_EQ(own.find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_NE(own, name_for(std::string(129, 'a')));
}

TEST(HttpServer, UnknownFieldsAreToldInAWarning) {
  FakeLoop loop(says("x"));
  for (const char* const stream : {"true", "false"}) {
    const RawReply reply = ask(loop, kText, std::string(R"({"prompt":"a","wings":2,"stream":)") + stream + "}");
    EXPECT_EQ(reply.headers.at("warning"), "299 spillway \"unknown fields ignored: wings\"");
  }
}

TEST(HttpServer, OldHttpGetsAStreamWithoutChunks) {
  FakeLoop loop(says("hey"));
  RawClient client(loop.port());
  const std::string body(kStream);
  client.send("POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: " +
              std::to_string(body.size()) + "\r\n\r\n" + body);
  RawReply reply;
  ASSERT_TRUE(client.read_head(reply));
  EXPECT_FALSE(reply.headers.contains("transfer-encoding"));
  const std::string rest = client.read_rest();
  EXPECT_TRUE(rest.starts_with("data: {"));
  EXPECT_TRUE(rest.ends_with("data: [DONE]\n\n"));
}

TEST(HttpServer, StopEndsRequestsUnderWayAndRefusesNewOnes) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) {
    if (work.prompt.size() > 1) self.tokens(work, "a");
  });
  RawClient streaming(loop.port()), waiting(loop.port()), idle(loop.port());
  streaming.post(kText, kStream);
  ASSERT_TRUE(streaming.read_until("\"text\":\"a\""));
  waiting.post(kText, R"({"prompt":"q"})");
  idle.get("/health/live");
  ASSERT_TRUE(idle.read_reply());
  ASSERT_TRUE(loop.wait_arrivals(2));
  loop.server->stop();
  EXPECT_NE(streaming.read_rest().find("shutting down"), std::string::npos);
  EXPECT_EQ(waiting.read_reply().value_or(RawReply{}).status, 503u);
  EXPECT_TRUE(idle.at_end());
  EXPECT_FALSE(RawClient(loop.port()).connected());
}

TEST(HttpServer, TakenPortIsASetupErrorNamingIt) {
  FakeLoop loop(says("x"));
  EventFdWaker waker;
  Mailbox<GatewayInput> inputs(2048, waker);
  ByteTokenizer tokenizer;
  const ServedModel model = make_byte_model(tokenizer);
  HttpConfig config;
  config.port = loop.port();
  try {
    HttpServer second(config, model, inputs, BootId{1});
    FAIL() << "two servers listen on one port";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find(std::to_string(config.port)), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("--port"), std::string::npos);
  }
}

TEST(HttpServer, AnAddressThatOthersReachIsRefusedWhateverItIsCalled) {
  EventFdWaker waker;
  Mailbox<GatewayInput> inputs(2048, waker);
  ByteTokenizer tokenizer;
  const ServedModel model = make_byte_model(tokenizer);
  const auto why_refused = [&](std::string host) -> std::string {
    HttpConfig config;
    config.host = std::move(host);
    config.port = 0;
    try {
      const HttpServer server(config, model, inputs, BootId{1});
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  };
  for (const char* const host : {"0.0.0.0", "0"})
    EXPECT_NE(why_refused(host).find("--insecure"), std::string::npos) << host;
  EXPECT_NE(why_refused("").find("--host is empty"), std::string::npos);
  const std::string any6 = why_refused("::");
  EXPECT_TRUE(any6.find("--insecure") != std::string::npos || any6.find("cannot listen") != std::string::npos)
      << any6;  // where there is no IPv6
  EXPECT_EQ(why_refused("127.0.0.2"), "");
  EXPECT_EQ(why_refused("localhost"), "");
}

TEST(HttpServer, ManyStreamsAtOnceKeepTheirTokensApart) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& work) {
    self.tokens(work, std::string(30, static_cast<char>(work.prompt[0])));
    self.end(work, 30);
  });
  std::vector<std::future<RawReply>> replies;
  for (const char letter : std::string_view("abcdefgh"))
    replies.push_back(std::async(std::launch::async, [&loop, letter] {
      return ask(loop, kText, std::string(R"({"prompt":")") + letter + R"(","max_tokens":30})");
    }));
  for (size_t index = 0; index < replies.size(); ++index)
    EXPECT_EQ(Json::parse(replies[index].get().body)["choices"][0]["text"],
              std::string(30, static_cast<char>('a' + index)));
}

TEST(HttpServer, MoreConnectionsThanTheProcessMayOpenAreRefusedByName) {
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  HttpConfig config;
  config.connections_max = static_cast<uint32_t>(std::min<rlim_t>(before.rlim_max, 1u << 30));
  try {
    FakeLoop loop(says("x"), config);
    ADD_FAILURE() << "it listens";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("lower --queue-max"), std::string::npos);
  }
}

}  // namespace
}  // namespace spillway
