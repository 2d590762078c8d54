#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/gateway/ask.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/support/captured_log.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

constexpr const char* kTrace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n";

// Those of one message.
std::vector<Json> said(const std::vector<std::string>& lines, std::string_view message) {
  std::vector<Json> found;
  for (const std::string& line : lines)
    if (Json parsed = Json::parse(line); parsed["message"] == message) found.push_back(std::move(parsed));
  return found;
}

TEST(HttpRequestLog, ARequestIsNamedAsTheNodesTheClientAndItsTraceNameIt) {
  CapturedLog log(LogFormat::kJson);
  std::optional<TraceContext> carried;
  std::string id;
  {
    FakeLoop loop(says("xyz"));
    ask(loop, "/v1/completions", R"({"prompt":"abc","max_tokens":3})",
        std::string("X-Request-Id: mine-1\r\n") + kTrace);
    ask(loop, "/v1/completions", R"({"prompt":"abc","max_tokens":3})");
    carried = loop.arrived().at(0).trace;
    id = id_text(loop.arrived().at(0).request);
    EXPECT_FALSE(loop.arrived().at(1).trace.has_value());
  }
  const std::vector<Json> done = said(log.take_lines(), "request_done");
  ASSERT_EQ(done.size(), 2u);
  EXPECT_EQ(done[0]["request"], id);
  EXPECT_EQ(done[0]["x_request_id"], "mine-1");
  EXPECT_EQ(done[0]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(done[0]["parent_id"], "00f067aa0ba902b7");
  EXPECT_EQ(done[0]["prompt_tokens"], 3);
  EXPECT_EQ(done[0]["ttft_ms"], 20);
  ASSERT_TRUE(carried.has_value());
  EXPECT_EQ(carried->trace_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
  for (const char* const absent : {"x_request_id", "trace_id", "parent_id"}) EXPECT_FALSE(done[1].contains(absent));
}

TEST(HttpRequestLog, EachChoiceNamesTheIdThatTheAnswerCarries) {
  CapturedLog log(LogFormat::kJson);
  std::string answer;
  {
    FakeLoop loop([](FakeLoop& self, const GenerateRequest& request) {
      if (request.prompt.size() == 2) return self.error(request, ErrorCode::kInternal, "broke");
      self.tokens(request, "x");
      self.end(request, 1);
    });
    const RawReply reply = ask(loop, "/v1/completions", R"({"prompt":"abc","n":3})");
    answer = reply.headers.at("x-request-id");
    EXPECT_EQ(Json::parse(reply.body)["id"], "cmpl-" + answer);
    ask(loop, "/v1/completions", R"({"prompt":["ab","abc"],"max_tokens":1})", "X-Request-Id: fails\r\n");
  }
  const std::vector<std::string> lines = log.take_lines();
  const std::vector<Json> done = said(lines, "request_done");
  ASSERT_GE(done.size(), 3u);
  for (size_t choice = 0; choice < 3; ++choice) {
    EXPECT_EQ(done[choice]["request"] == answer, choice == 0);
    EXPECT_EQ(done[choice].value("answer", "none"), choice == 0 ? "none" : answer);
  }
  EXPECT_FALSE(said(lines, "request_failed").at(0).contains("answer")) << "the first one's id is the answer's";
}

TEST(HttpRequestLog, ABadOrDoubledTraceIsNone) {
  FakeLoop loop(says("xyz"));
  for (const std::string& headers :
       {std::string(kTrace) + kTrace,
        std::string("traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01\r\n"),
        std::string("traceparent: \r\n")})
    EXPECT_EQ(ask(loop, "/v1/completions", R"({"prompt":"abc","max_tokens":3})", headers).status, 200u) << headers;
  for (const GenerateRequest& request : loop.arrived()) EXPECT_FALSE(request.trace.has_value());
}

TEST(HttpRequestLog, NothingOfARequestForgesALineAndNoPromptIsInOne) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    CapturedLog log(format);
    {
      FakeLoop loop(says("xyz"));
      const std::string forged = "\\n12:00:00.000 info  [gateway] forged pid=1\\u001b[31m\\\"";
      const std::string hostile =
          "X-Request-Id: a\" pid=1\r\nUser-Agent: x\x1b[2J\" level=\"\r\ntraceparent: \x1b[2J\r\n";
      ask(loop, "/v1/completions", R"({"prompt":"secret prompt","max_tokens":3,"stop":"secret stop"})", hostile);
      ask(loop, "/v1/completions", R"({"prompt":"secret prompt","model":")" + forged + "\"}", hostile);
      ask(loop, "/v1/completions", R"({"secret field":1,"prompt":["secret prompt"],"max_tokens":"secret"})");
      ask(loop, "/v1/\"pid=1%0aforged\\", "{}", hostile);
      fetch(loop, "/v1/models/a\"%0d%0aforged%1b[31m");
      RawClient raw(loop.port());
      raw.send("GET /v1/models\nforged: 1\r\n\r\n");
      (void)raw.read_reply();
      RawClient escape(loop.port());
      escape.send("GET /\x1b[31mforged HTTP/1.1\r\nHost: x\r\n\r\n");
      (void)escape.read_reply();
    }
    const std::vector<std::string> lines = log.take_lines();
    EXPECT_GE(lines.size(), 5u);
    for (const std::string& line : lines) {
      EXPECT_TRUE(std::ranges::all_of(line, [](char c) { return c >= 0x20 && c <= 0x7e; })) << line;
      EXPECT_EQ(line.find("secret"), std::string::npos) << line;
      EXPECT_EQ(line.find(" pid=1"), std::string::npos) << line;
      const std::string message = format == LogFormat::kJson ? Json::parse(line)["message"].get<std::string>()
                                                             : line.substr(line.find(']') + 2);
      EXPECT_TRUE(message.starts_with("request_")) << line;
    }
  }
}

TEST(HttpRequestLog, AFailureAndALeavingClientAreToldWithTheirReasons) {
  CapturedLog log(LogFormat::kJson);
  {
    FakeLoop loop([](FakeLoop& from, const GenerateRequest& request) {
      if (request.prompt.size() == 1)
        from.server->deliver(StreamError{request.request, {ErrorCode::kPeerLost, "gone"}});
      if (request.prompt.size() == 3) from.tokens(request, "a");
    });
    ask(loop, "/v1/completions", R"({"prompt":"a"})", "X-Request-Id: fails\r\n");
    {
      RawClient client(loop.port());
      client.post("/v1/completions", R"({"prompt":"abc","stream":true})", "X-Request-Id: leaves\r\n");
      ASSERT_TRUE(client.read_until("\"text\":\"a\""));
    }
    ASSERT_TRUE(loop.wait_gone(1));
  }
  const std::vector<std::string> lines = log.take_lines();
  const std::vector<Json> failed = said(lines, "request_failed"), cancelled = said(lines, "request_cancelled");
  ASSERT_EQ(failed.size(), 1u);
  EXPECT_EQ(failed[0]["x_request_id"], "fails");
  EXPECT_EQ(failed[0]["code"], "peer_lost");
  EXPECT_EQ(failed[0]["detail"], "gone");
  EXPECT_EQ(failed[0]["level"], "warning");
  ASSERT_EQ(cancelled.size(), 1u);
  EXPECT_EQ(cancelled[0]["x_request_id"], "leaves");
  EXPECT_EQ(cancelled[0]["why"], "the client left");
}

}  // namespace
}  // namespace spillway
