// Several choices of one request: lists of prompts, `n`, echo and log-probabilities, from the JSON to the JSON.
#include "gateway/api_choices.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "tests/gateway/ask.h"
#include "tests/gateway/byte_model.h"
#include "tests/gateway/fake_loop.h"
#include "tests/gateway/gateway_under_test.h"
#include "tests/gateway/loop_scripts.h"

namespace spillway {
namespace {

using Json = nlohmann::json;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;
constexpr PeerId kP2 = GatewayUnderTest::kP2, kD2 = GatewayUnderTest::kD2;

class ApiChoices : public ::testing::Test {
 protected:
  Parsed<ApiRequest> parse(std::string_view body, Endpoint endpoint = Endpoint::kCompletions) const {
    return parse_api_request(endpoint, body, model_, 100, 1);
  }
  std::string refused(std::string_view body, Endpoint endpoint = Endpoint::kCompletions) const {
    const auto parsed = parse(body, endpoint);
    return parsed ? "taken" : parsed.error().param;
  }
  ByteTokenizer tokenizer_;
  ServedModel model_ = make_byte_model(tokenizer_);
};

TEST_F(ApiChoices, EachChoiceIsARequestAndFollowsTheFirstOfItsPrompt) {
  const auto parsed = parse(R"({"prompt":["ab","c"],"n":3,"echo":true,"logprobs":2,"seed":9})");
  ASSERT_TRUE(parsed) << parsed.error().message;
  uint64_t ids = 10;
  const auto requests = choice_requests(*parsed, {}, {}, {BootId{1}, 10}, [&] { return RequestId{BootId{1}, ++ids}; });
  ASSERT_EQ(requests.size(), 6u);
  for (size_t index = 0; index < 6; ++index) {
    const GenerateRequest& one = requests[index];
    EXPECT_EQ(one.request.counter, 10 + index);
    EXPECT_EQ(one.prompt.size(), index < 3 ? 2u : 1u);
    EXPECT_EQ(one.sampling.choice, index % 3);
    EXPECT_EQ(one.sampling.seed, 9u);
    EXPECT_EQ(one.logprob_count, 3u);
    EXPECT_EQ(one.leader.has_value(), index % 3 != 0);
    EXPECT_EQ(one.score_prompt, index % 3 == 0) << "a follower's prompt comes from the cache";
    if (one.leader) {
      EXPECT_EQ(one.leader->counter, 10 + index / 3 * 3);
    }
  }
}

TEST_F(ApiChoices, BoundsAreNamed) {
  EXPECT_EQ(refused(R"({"prompt":"a","n":9})"), "n");
  EXPECT_EQ(refused(R"({"prompt":"a","n":0})"), "n");
  EXPECT_EQ(refused(R"({"prompt":"a","n":2,"best_of":3})"), "best_of");
  EXPECT_EQ(refused(R"({"prompt":"a","n":2,"best_of":2})"), "taken");
  EXPECT_EQ(refused(R"({"prompt":"a","logprobs":21})"), "logprobs");
  EXPECT_EQ(refused(R"({"prompt":"a","logprobs":-1})"), "logprobs");
  EXPECT_EQ(refused(R"({"prompt":"a","max_tokens":0})"), "max_tokens");
  EXPECT_EQ(refused(R"({"prompt":"a","max_tokens":0,"echo":true})"), "taken");
  EXPECT_EQ(refused(R"({"prompt":["a","b"],"logit_digests":true})"), "logit_digests");
  EXPECT_EQ(refused(R"({"prompt":["a",[1]]})"), "taken");
  EXPECT_EQ(refused(R"({"prompt":["a",7]})"), "prompt");
  EXPECT_EQ(refused(R"({"prompt":["a",""]})"), "prompt");
  EXPECT_EQ(refused(R"({"prompt":[[]]})"), "prompt");
  const auto list = [](size_t count, size_t bytes, const std::string& more) {
    Json body = {{"prompt", Json::array()}};
    for (size_t index = 0; index < count; ++index) body["prompt"].push_back(std::string(bytes, 'x'));
    const std::string text = body.dump();
    return text.substr(0, text.size() - 1) + more + "}";
  };
  EXPECT_EQ(refused(list(64, 5, "")), "taken");
  EXPECT_EQ(refused(list(65, 5, "")), "prompt");
  EXPECT_EQ(refused(list(64, 5, R"(,"n":3)")), "n");
  EXPECT_EQ(refused(list(16, 50, "")), "taken");
  EXPECT_EQ(refused(list(17, 50, "")), "prompt") << "more tokens than eight contexts";
  EXPECT_EQ(refused(list(16, 20, R"(,"n":8,"logprobs":20,"max_tokens":50)")), "taken");
  EXPECT_EQ(parse_api_request(Endpoint::kCompletions, list(64, 90, R"(,"n":2,"logprobs":20,"max_tokens":300)"),
                              make_byte_model(tokenizer_, 1000), 1000, 1)
                .error()
                .param,
            "logprobs");
  const auto chat = [&](const std::string& more) {
    return refused(R"({"messages":[{"role":"user","content":"a"}])" + more + "}", Endpoint::kChatCompletions);
  };
  EXPECT_EQ(chat(R"(,"top_logprobs":2)"), "top_logprobs");
  EXPECT_EQ(chat(R"(,"logprobs":true,"top_logprobs":21)"), "top_logprobs");
  EXPECT_EQ(chat(R"(,"logprobs":1)"), "logprobs");
  EXPECT_EQ(chat(R"(,"logprobs":true,"top_logprobs":20,"n":2)"), "taken");
  EXPECT_EQ(chat(R"(,"echo":true)"), "echo");
}

// The payloads of a stream but its [DONE].
std::vector<Json> events_of(const std::string& stream) {
  std::vector<Json> events;
  for (size_t at = 0; (at = stream.find("data: {", at)) != std::string::npos; at = stream.find('\n', at))
    events.push_back(Json::parse(stream.substr(at + 6, stream.find('\n', at) - at - 6)));
  return events;
}

StreamToken token_of(char byte, uint32_t index, std::vector<TokenLogprob> logprobs) {
  return {{}, index, static_cast<unsigned char>(byte), 0, {}, false, std::move(logprobs)};
}

TEST_F(ApiChoices, CompletionLogprobsHaveOpenAisShapeBehindAnEcho) {
  OpenAiAnswer answer({}, tokenizer_, {.logprobs = true, .echoed = {{'a', 0xc3, 0xa9}}});
  answer.add_scores(0, {{}, 1, 2, {{0xc3, -1}, {'b', -0.5f}, {0xa9, -0.25f}, {0xa9, -0.25f}}});
  answer.add_token(0, token_of('z', 0, {{'z', -2}, {'y', -1}}));
  StreamEnd end;
  end.finish = FinishReason::kLength;
  answer.add_end(0, end);
  const Json choice = Json::parse(answer.body())["choices"][0];
  EXPECT_EQ(choice["text"], "a\xc3\xa9z");
  const Json expected = Json::parse(R"({"tokens":["a","bytes:\\xc3","bytes:\\xa9","z"],
    "token_logprobs":[null,-1.0,-0.25,-2.0],
    "top_logprobs":[null,{"b":-0.5,"bytes:\\xc3":-1.0},{"bytes:\\xa9":-0.25},{"y":-1.0,"z":-2.0}],
    "text_offset":[0,1,1,2]})");
  EXPECT_EQ(choice["logprobs"], expected) << choice["logprobs"].dump();
}

TEST_F(ApiChoices, ACharacterThatAnEchoBeginsAndItsAnswerEndsIsWhole) {
  const AnswerShape shape{.logprobs = true, .echoed = {{'a', 0xc3}}};
  StreamEnd end;
  end.finish = FinishReason::kLength;
  OpenAiAnswer whole({}, tokenizer_, shape);
  for (uint32_t index = 0; const char byte : {'\xa9', 'z'}) whole.add_token(0, token_of(byte, index++, {{'z', -2}}));
  whole.add_end(0, end);
  const Json choice = Json::parse(whole.body())["choices"][0];
  EXPECT_EQ(choice["text"], "a\xc3\xa9z");
  EXPECT_EQ(choice["logprobs"]["text_offset"], Json({0, 1, 1, 2}));

  OpenAiAnswer streamed({}, tokenizer_, shape);
  std::string rest, stream, text;
  for (uint32_t index = 0; const char byte : {'\xa9', 'z'})
    streamed.stream_token(0, token_of(byte, index++, {{'z', -2}}), rest);
  streamed.stream_end(0, end, rest);
  while (streamed.stream_echo(stream)) continue;
  for (const Json& event : events_of(stream + rest)) text += event["choices"][0]["text"].get<std::string>();
  EXPECT_EQ(text, "a\xc3\xa9z");

  OpenAiAnswer alone({}, tokenizer_, {.prompt_only = true, .echoed = {{'a', 0xc3}}});
  alone.add_end(0, end);
  EXPECT_EQ(Json::parse(alone.body())["choices"][0]["text"], "a\xef\xbf\xbd");
}

TEST_F(ApiChoices, LogprobsAreWrittenWithTheDigitsOfAFloat) {
  std::mt19937 random(7);
  std::uniform_real_distribution<float> exponent(-40, 7);
  std::vector<TokenLogprob> drawn{{'z', -0.1f}, {'y', -std::numeric_limits<float>::infinity()}};
  for (int index = 0; index < 10000; ++index) drawn.push_back({'a', -std::exp2(exponent(random))});
  size_t longer = 0;
  for (const TokenLogprob& one : drawn) {
    const ScoredToken scored{one.token, {one}, 0};
    const std::string text =
        logprobs_json(Endpoint::kCompletions, tokenizer_, {&scored, 1})["token_logprobs"][0].dump();
    if (std::isinf(one.logprob)) {
      EXPECT_EQ(text, "null");
      continue;
    }
    EXPECT_EQ(static_cast<float>(std::stod(text)), one.logprob) << text;
    longer += text.size() > 16 ? 1 : 0;
  }
  EXPECT_LT(longer, drawn.size() / 50);  // the library's way of writing is not always the shortest
}

TEST_F(ApiChoices, ChatLogprobsHaveOpenAisShape) {
  OpenAiAnswer answer({.endpoint = Endpoint::kChatCompletions}, tokenizer_, {.logprobs = true});
  std::string out;
  answer.stream_token(0, token_of('z', 0, {{'z', -2}, {'y', -1}}), out);
  const Json choice = Json::parse(out.substr(6))["choices"][0];
  EXPECT_EQ(choice["logprobs"], Json::parse(R"({"content":[{"token":"z","logprob":-2.0,"bytes":[122],"top_logprobs":
    [{"token":"y","logprob":-1.0,"bytes":[121]}]}],"refusal":null})"));
}

TEST_F(ApiChoices, ChoicesEndOneByOneAndThePromptCountsOnce) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& request) {
    const std::string text(1 + request.sampling.choice, static_cast<char>('a' + request.sampling.choice));
    self.tokens(request, text);
    self.end(request, static_cast<uint32_t>(text.size()));
  });
  const RawReply reply = ask(loop, "/v1/completions", R"({"prompt":["xx","yyy"],"n":2})");
  ASSERT_EQ(reply.status, 200u) << reply.body;
  const Json body = Json::parse(reply.body);
  ASSERT_EQ(body["choices"].size(), 4u);
  for (size_t index = 0; index < 4; ++index) {
    EXPECT_EQ(body["choices"][index]["index"], index);
    EXPECT_EQ(body["choices"][index]["text"], index % 2 == 0 ? "a" : "bb");
  }
  EXPECT_EQ(body["usage"]["prompt_tokens"], 5);
  EXPECT_EQ(body["usage"]["completion_tokens"], 6);
}

TEST_F(ApiChoices, OneThatFailsEndsAllWithOneError) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& request) {
    if (request.sampling.choice == 1) self.error(request, ErrorCode::kInternal, "broke");
  });
  const RawReply reply = ask(loop, "/v1/completions", R"({"prompt":"xx","n":3})");
  EXPECT_EQ(reply.status, 500u);
  EXPECT_NE(reply.body.find("broke"), std::string::npos);
  EXPECT_TRUE(loop.wait_gone(2)) << "the others are cancelled";
}

// Half a million log-probabilities in one event would hold up every other client while they become JSON.
TEST_F(ApiChoices, AStreamedEchoComesInPiecesBeforeItsTokensAndIsThatOfTheAnswerInOnePiece) {
  FakeLoop loop([](FakeLoop& self, const GenerateRequest& request) {
    if (request.score_prompt)
      for (uint32_t position = 1; position < request.prompt.size(); ++position) {
        const auto byte = static_cast<TokenId>(request.prompt[position]);
        self.server->deliver(StreamScores{request.request, position, 2, {{byte, -1.5f}, {'b', -0.5f}}});
      }
    self.tokens(request, "xyz");
    self.end(request, 3);
  });
  std::string long_prompt;
  for (int index = 0; index < 150; ++index) long_prompt += "a\xe2\x82\xac";  // 600 tokens; 64 of them split a character
  Json body = {{"prompt", {long_prompt, "short"}}, {"n", 2}, {"echo", true}, {"logprobs", 1}};
  const Json whole = Json::parse(ask(loop, "/v1/completions", body.dump()).body)["choices"];
  body["stream"] = true;
  body["stream_options"] = {{"include_usage", true}, {"continuous_usage_stats", true}};
  const RawReply reply = ask(loop, "/v1/completions", body.dump());
  EXPECT_TRUE(reply.body.ends_with("data: [DONE]\n\n"));
  Json joined = Json::array();
  int tokens_so_far = 0;
  for (size_t choice = 0; choice < 4; ++choice) joined.push_back({{"text", ""}, {"logprobs", nullptr}});
  for (const Json& event : events_of(reply.body)) {
    EXPECT_GE(event["usage"]["completion_tokens"], tokens_so_far);
    tokens_so_far = event["usage"]["completion_tokens"];
    if (event["choices"].empty()) continue;
    const Json& piece = event["choices"][0];
    Json& one = joined[piece["index"].get<size_t>()];
    one["text"] = one["text"].get<std::string>() + piece["text"].get<std::string>();
    if (piece["logprobs"].is_null()) continue;
    EXPECT_LE(piece["logprobs"]["tokens"].size(), kEchoTokensAnEvent);
    for (const auto& [name, list] : piece["logprobs"].items())
      for (const Json& entry : list) one["logprobs"][name].push_back(entry);
  }
  for (size_t choice = 0; choice < 4; ++choice) {
    EXPECT_EQ(joined[choice]["text"], whole[choice]["text"]) << choice;
    EXPECT_EQ(joined[choice]["logprobs"], whole[choice]["logprobs"]) << choice;
  }
}

class Followers : public ::testing::Test {
 protected:
  RequestId arrive(std::optional<RequestId> leader, uint32_t output_max = 4, std::byte tenant = {}) {
    GenerateRequest work;
    work.tenant.bytes[0] = tenant;
    work.request = {BootId{77}, ++ids_};
    work.prompt.assign(20, TokenId{5});
    work.output_tokens_max = output_max;
    work.leader = leader;
    test_.on(RequestArrived{work});
    return work.request;
  }
  size_t dispatched() const { return test_.all<Prefill>(kP).size() + test_.all<Prefill>(kP2).size(); }
  GatewayUnderTest test_{{.queue_max = 2, .held_max = 3}};
  uint64_t ids_ = 0;
};

TEST_F(Followers, WaitForTheLeadersSecondTokenAndGoWhereItRuns) {
  test_.up_pair();
  const RequestId leader = arrive({});
  test_.up(kP2, Role::kPrefill);
  test_.up(kD2, Role::kDecode, 1000);  // emptier
  const Attempt attempt = test_.attempt();
  arrive(leader);
  arrive(leader);
  EXPECT_EQ(test_.gateway.counters().queued, 2u);
  test_.token(kP, attempt, 0);
  EXPECT_EQ(dispatched(), 1u);
  test_.token(kD, attempt, 1);
  EXPECT_EQ(dispatched(), 3u);
  EXPECT_EQ(test_.all<Prefill>(kP).size(), 3u);
  EXPECT_EQ(test_.all<Reserve>(kD).size(), 3u);
  EXPECT_EQ(test_.gateway.counters().queued, 0u);
  arrive(leader);  // late
  EXPECT_EQ(dispatched(), 4u);
}

TEST_F(Followers, GoOnWithoutALeaderThatEndsOrLeaves) {
  test_.up_pair();
  for (const int how : {0, 1}) {
    const RequestId leader = arrive({}, 1);
    const Attempt attempt = test_.attempt();
    const size_t before = dispatched();
    arrive(leader);
    EXPECT_EQ(dispatched(), before);
    if (how == 0) test_.token(kP, attempt, 0, FinishReason::kLength);
    if (how == 1) test_.on(ClientGone{leader});
    EXPECT_EQ(dispatched(), before + 1) << how;
  }
}

TEST_F(Followers, EndWithALeaderThatFails) {
  test_.up_pair();
  const RequestId leader = arrive({});
  const Attempt attempt = test_.attempt();
  const RequestId follower = arrive(leader);
  test_.message(kP, Failed{attempt, ErrorCode::kInternal, "broke"});
  EXPECT_EQ(test_.errors_of(leader), std::vector<ErrorCode>{ErrorCode::kInternal});
  EXPECT_EQ(test_.errors_of(follower), std::vector<ErrorCode>{ErrorCode::kInternal});
  EXPECT_EQ(dispatched(), 1u);
  EXPECT_EQ(test_.gateway.counters().queued, 0u);
}

TEST_F(Followers, OneTenantsHeldChoicesLockOutNobodyElse) {
  test_.up_pair();
  const std::byte busy{1}, other{2};
  const RequestId leader = arrive({}, 4, busy);
  arrive(leader, 4, busy);
  arrive(leader, 4, busy);
  const RequestId last = arrive(leader, 4, busy);
  const RequestId others = arrive({}, 4, other);
  const RequestId held = arrive(others, 4, other);
  EXPECT_TRUE(test_.errors_of(others).empty());
  EXPECT_TRUE(test_.errors_of(held).empty());
  ASSERT_EQ(test_.errors_of(last), std::vector<ErrorCode>{ErrorCode::kQueueFull});
  EXPECT_NE(test_.errors[0].error.detail.find("3 further choices"), std::string::npos);
}

TEST_F(Followers, HeldOnesLeaveWithTheirClientAndHaveABoundOfTheirOwn) {
  test_.up_pair();
  const RequestId leader = arrive({});
  const RequestId held = arrive(leader);
  arrive(leader);
  arrive(leader);
  const RequestId refused = arrive(leader);
  EXPECT_EQ(test_.errors_of(refused), std::vector<ErrorCode>{ErrorCode::kQueueFull});
  EXPECT_TRUE(test_.errors_of(arrive({})).empty()) << "they take no place of others in the queue";
  test_.on(ClientGone{held});
  EXPECT_EQ(test_.gateway.counters().queued, 2u);
  test_.advance(std::chrono::minutes(6));
  EXPECT_EQ(test_.gateway.counters().queued, 0u) << "none waits for ever";
}

TEST_F(Followers, ScoresReachTheStreamOnlyFromTheLegThatComputesThem) {
  test_.up_pair();
  GenerateRequest work;
  work.request = {BootId{77}, ++ids_};
  work.prompt = {1, 2, 3};
  work.output_tokens_max = 4;
  work.logprob_count = 2;
  work.score_prompt = true;
  test_.on(RequestArrived{work});
  const Attempt attempt = test_.attempt();
  EXPECT_TRUE(test_.all<Prefill>(kP).back().work.score_prompt);
  const std::vector<TokenLogprob> two = {{2, -1}, {2, -1}, {3, -1}, {4, -0.5f}};
  test_.message(kD, PromptLogprobs{attempt, 1, 2, two});
  test_.message(kP, PromptLogprobs{attempt, 2, 2, two});  // over the prompt's end
  test_.message(kP, PromptLogprobs{attempt, 0, 2, two});
  test_.message(kP, PromptLogprobs{attempt, 1, 1, two});
  EXPECT_TRUE(test_.scores.empty());
  test_.message(kP, PromptLogprobs{attempt, 1, 2, two});
  ASSERT_EQ(test_.scores.size(), 1u);
  EXPECT_EQ(test_.scores[0].logprobs, two);
}

}  // namespace
}  // namespace spillway
