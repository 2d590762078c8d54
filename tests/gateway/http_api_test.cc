// What the API offers beside plain completions, over a real socket.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/version.h"
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

TEST(HttpApi, TokenizeGivesTheTokensAndWithAddSpecialThoseOfACompletion) {
  FakeLoop loop(says("x"));
  const RawReply reply = ask(loop, "/tokenize", R"({"prompt":"ab<|im_end|>","wings":1})");
  ASSERT_EQ(reply.status, 200u) << reply.body;
  EXPECT_EQ(Json::parse(reply.body), (Json{{"tokens", {'a', 'b', 257}}, {"count", 3}, {"max_model_len", 1000}}));
  EXPECT_EQ(reply.headers.at("warning"), "299 spillway \"unknown fields ignored: wings\"");
  EXPECT_EQ(Json::parse(ask(loop, "/tokenize", R"({"content":"ab","add_special":true})").body)["tokens"],
            (Json{'a', 'b'}));  // this model wants no BOS
  const std::string messages = R"("messages":[{"role":"user","content":"hi"}])";
  const Json chat = Json::parse(ask(loop, "/tokenize", "{" + messages + "}").body);
  EXPECT_EQ(ask(loop, "/v1/chat/completions", "{" + messages + R"(,"max_tokens":1})").status, 200u);
  EXPECT_EQ(chat["tokens"], Json(loop.arrived().at(0).prompt));
  EXPECT_EQ(loop.arrived().size(), 1u) << "no tokens are generated for it";
}

TEST(HttpApi, DetokenizeUndoesTokenize) {
  FakeLoop loop(says("x"));
  const std::string text = "caf\xc3\xa9 <|im_start|>user";
  const Json tokens = Json::parse(ask(loop, "/tokenize", Json{{"prompt", text}}.dump()).body)["tokens"];
  const Json back = Json::parse(ask(loop, "/detokenize", Json{{"tokens", tokens}}.dump()).body);
  EXPECT_EQ(back, (Json{{"prompt", text}, {"content", text}}));
  EXPECT_EQ(Json::parse(ask(loop, "/detokenize", R"({"tokens":[97,195]})").body)["prompt"], "a\xef\xbf\xbd");
}

TEST(HttpApi, TokenRoutesRefuseByField) {
  struct Case {
    const char *path, *body, *param;
  };
  FakeLoop loop(says("x"));
  for (const Case& one : {Case{"/tokenize", "{}", "prompt"},
                          {"/tokenize", R"({"prompt":["a"]})", "prompt"},
                          {"/tokenize", R"({"content":7})", "content"},
                          {"/tokenize", R"({"prompt":"a","add_special":1})", "add_special"},
                          {"/tokenize", R"({"messages":[]})", "messages"},
                          {"/tokenize", R"({"prompt":"a","model":7})", "model"},
                          {"/tokenize", R"({"prompt":"a","content":"a"})", "content"},
                          {"/tokenize", R"({"prompt":"a","messages":[{"role":"user","content":"a"}]})", "messages"},
                          {"/tokenize", R"({"content":"a","messages":[{"role":"user","content":"a"}]})", "messages"},
                          {"/detokenize", "{}", "tokens"},
                          {"/detokenize", R"({"tokens":"a"})", "tokens"},
                          {"/detokenize", R"({"tokens":[1,-1]})", "tokens"},
                          {"/detokenize", R"({"tokens":[259]})", "tokens"},
                          {"/detokenize", R"({"tokens":[1.5]})", "tokens"}}) {
    SCOPED_TRACE(one.body);
    const RawReply reply = ask(loop, one.path, one.body);
    EXPECT_EQ(reply.status, 400u);
    EXPECT_EQ(Json::parse(reply.body)["error"]["param"], one.param);
  }
  const std::string huge = std::string(100000, 'a');
  EXPECT_EQ(error_code_of(ask(loop, "/tokenize", Json{{"prompt", huge}}.dump())), "context_length_exceeded");
  const Json ids(std::vector<int>(1000, 5));
  EXPECT_EQ(error_code_of(ask(loop, "/detokenize", Json{{"tokens", ids}}.dump())), "context_length_exceeded");
}

TEST(HttpApi, EveryNameOfTheModelIsListedAndTaken) {
  FakeLoop loop(says("x"));
  const Json list = Json::parse(fetch(loop, "/v1/models").body)["data"];
  ASSERT_EQ(list.size(), 2u);
  for (size_t index = 0; index < 2; ++index) {
    const std::string name = index == 0 ? "bytes" : "org/second";
    EXPECT_EQ(list[index]["id"], name);
    EXPECT_EQ(Json::parse(fetch(loop, "/v1/models/" + name).body), list[index]);
    const Json body = {{"prompt", "a"}, {"model", name}};
    EXPECT_EQ(Json::parse(ask(loop, kText, body.dump()).body)["model"], name);
  }
  EXPECT_EQ(fetch(loop, "/v1/models/org/third").status, 404u);
}

TEST(HttpApi, AStreamThatWaitsIsKeptAliveByComments) {
  HttpConfig config;
  config.stream_silence_max = std::chrono::milliseconds(50);
  FakeLoop loop(says_nothing, config);
  RawClient client(loop.port());
  client.post(kText, R"({"prompt":"a","stream":true})");
  ASSERT_TRUE(client.read_until(": ping\n\n")) << "before the first token";
  ASSERT_TRUE(loop.wait_arrivals(1));
  loop.tokens(loop.arrived()[0], "u");
  ASSERT_TRUE(client.read_until("\"text\":\"u\""));
  ASSERT_TRUE(client.read_until(": ping\n\n"));
  ASSERT_TRUE(client.read_until(": ping\n\n"));
  loop.error(loop.arrived()[0], ErrorCode::kPeerLost, "decode 0 died");
  EXPECT_TRUE(client.read_until("data: {\"error\":{\"message\":\"decode 0 died\""));
  EXPECT_TRUE(loop.gone().empty());
}

TEST(HttpApi, AClientThatLeavesBetweenCommentsIsTold) {
  HttpConfig config;
  config.stream_silence_max = std::chrono::milliseconds(20);
  FakeLoop loop(says_nothing, config);
  RawClient client(loop.port());
  client.post(kText, R"({"prompt":"a","stream":true})");
  ASSERT_TRUE(client.read_until(": ping\n\n"));
  client.close();
  EXPECT_TRUE(loop.wait_gone(1));
}

// Nothing of what() reaches the client: it may quote the request.
void expect_told(const RawReply& reply) {
  EXPECT_EQ(reply.status, 500u);
  EXPECT_EQ(error_code_of(reply), "internal");
  const std::string& id = reply.headers.at("x-request-id");
  EXPECT_NE(reply.body.find("(request " + id + ")"), std::string::npos) << reply.body;
  EXPECT_EQ(reply.body.find("secret"), std::string::npos);
}

TEST(HttpApi, AnExceptionIsA500ThatNamesTheRequest) {
  FakeLoop loop(says("x"));
  loop.tokenizer.before_encode = [](std::string_view) { throw std::runtime_error("secret"); };
  for (const char* const path : {"/tokenize", "/v1/completions"})
    expect_told(ask(loop, path, R"({"prompt":"secret"})"));
  loop.tokenizer.before_encode = nullptr;
  loop.tokenizer.before_size = [] { throw std::runtime_error("secret"); };
  RawClient client(loop.port());
  client.get("/openapi.json");  // made on the http thread
  const auto reply = client.read_reply();
  ASSERT_TRUE(reply) << "closed without an answer";
  expect_told(*reply);
  EXPECT_EQ(reply->headers.at("connection"), "close");
  EXPECT_TRUE(client.at_end());
  loop.tokenizer.before_size = nullptr;
  EXPECT_EQ(fetch(loop, "/openapi.json").status, 200u);
  EXPECT_EQ(ask(loop, kText, R"({"prompt":"abc"})").status, 200u);
}

TEST(HttpApi, VersionIsThatOfTheBuild) {
  FakeLoop loop(says("x"));
  EXPECT_EQ(Json::parse(fetch(loop, "/version").body), (Json{{"version", version()}}));
  EXPECT_FALSE(version().empty());
}

}  // namespace
}  // namespace spillway
