#include "gateway/sse.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "gateway/openai_answer.h"
#include "tests/gateway/byte_model.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

// Payloads of an event stream, as a client reads it: lines end in LF, `data:` lines of one event are joined by LF.
std::vector<std::string> payloads(std::string_view stream) {
  std::vector<std::string> events;
  std::vector<std::string> lines;
  while (!stream.empty()) {
    const size_t end = stream.find('\n');
    EXPECT_NE(end, std::string_view::npos) << "the stream ends inside a line";
    if (end == std::string_view::npos) break;
    const std::string_view line = stream.substr(0, end);
    stream.remove_prefix(end + 1);
    if (line.empty()) {
      std::string event;
      for (const std::string& part : lines) event += (&part == lines.data() ? "" : "\n") + part;
      events.push_back(event);
      lines.clear();
    } else {
      EXPECT_TRUE(line.starts_with("data: ")) << line;
      lines.emplace_back(line.substr(6));
    }
  }
  EXPECT_TRUE(lines.empty()) << "the last event is not closed";
  return events;
}

TEST(Sse, APayloadIsOneEvent) {
  std::string out;
  append_sse_event(out, R"({"a":1})");
  append_sse_event(out, kSseDone);
  EXPECT_EQ(out, "data: {\"a\":1}\n\ndata: [DONE]\n\n");
}

TEST(Sse, LineEndsInsideAPayloadNeverEndTheEvent) {
  for (const char* const payload : {"a\nb", "a\rb", "a\r\nb"}) {
    std::string out;
    append_sse_event(out, payload);
    EXPECT_EQ(payloads(out), std::vector<std::string>{"a\nb"});
  }
  std::string out;
  append_sse_event(out, "a\n\nb\n");
  EXPECT_EQ(payloads(out), std::vector<std::string>{"a\n\nb\n"});
}

TEST(Sse, AnEmptyPayloadIsAnEmptyEvent) {
  std::string out;
  append_sse_event(out, "");
  EXPECT_EQ(payloads(out), std::vector<std::string>{""});
}

class Answer : public ::testing::Test {
 protected:
  static StreamEnd end_of(FinishReason finish) {
    StreamEnd end;
    end.finish = finish;
    end.waterfall.prompt_tokens = 12;
    end.waterfall.output_tokens = 3;
    end.waterfall.prefill_cached_tokens = 5;
    end.waterfall.ttft = std::chrono::microseconds(1500);
    end.waterfall.queue = std::chrono::milliseconds(1);
    return end;
  }
  std::vector<std::string> stream(AnswerHead head, const std::string& bytes, FinishReason finish, bool digests) {
    head.id = "id-1";
    head.model = "bytes";
    head.created = 1700000000;
    OpenAiAnswer answer(head, tokenizer_, {.digests = digests, .stops = stops_});
    std::string out;
    uint32_t index = 0;
    for (const char byte : bytes)
      answer.stream_token(0, {{}, index++, static_cast<unsigned char>(byte), 0xabcull + index}, out);
    answer.stream_end(0, end_of(finish), out);
    return payloads(out);
  }

  ByteTokenizer tokenizer_;
  std::vector<std::string> stops_;
};

TEST_F(Answer, ChatChunksHaveTheShapeOfOpenAi) {
  const auto events =
      stream({.endpoint = Endpoint::kChatCompletions, .usage_null = true}, "hey", FinishReason::kStop, false);
  ASSERT_EQ(events.size(), 6u);
  std::string text;
  for (size_t index = 0; index < 4; ++index) {
    const Json chunk = Json::parse(events[index]);
    EXPECT_EQ(chunk["object"], "chat.completion.chunk");
    EXPECT_EQ(chunk["id"], "id-1");
    EXPECT_EQ(chunk["created"], 1700000000);
    EXPECT_TRUE(chunk.contains("usage") && chunk["usage"].is_null());
    const Json& choice = chunk["choices"].at(0);
    EXPECT_EQ(choice["index"], 0);
    EXPECT_EQ(choice["delta"].contains("role"), index == 0);
    EXPECT_EQ(choice["finish_reason"], index == 3 ? Json("stop") : Json(nullptr));
    EXPECT_EQ(chunk.contains("timings"), index == 3);
    EXPECT_FALSE(chunk.contains("logits_digest"));
    text += choice["delta"].value("content", "");
  }
  EXPECT_EQ(text, "hey");
  const Json usage = Json::parse(events[4]);
  EXPECT_EQ(usage["choices"], Json::array());
  EXPECT_EQ(usage["usage"]["prompt_tokens"], 12);
  EXPECT_EQ(usage["usage"]["completion_tokens"], 3);
  EXPECT_EQ(usage["usage"]["total_tokens"], 15);
  EXPECT_EQ(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 5);
  EXPECT_EQ(events[5], "[DONE]");
}

TEST_F(Answer, EveryChunkCarriesUsageSoFarWhereAskedFor) {
  const AnswerHead head{.endpoint = Endpoint::kCompletions, .usage_null = true, .usage_of_prompt = 12};
  const auto events = stream(head, "hey", FinishReason::kStop, false);
  ASSERT_EQ(events.size(), 6u);
  const int generated[] = {1, 2, 3, 3, 3};
  for (size_t index = 0; index < 5; ++index) {
    const Json usage = Json::parse(events[index])["usage"];
    EXPECT_EQ(usage["prompt_tokens"], 12);
    EXPECT_EQ(usage["completion_tokens"], generated[index]);
    EXPECT_EQ(usage["total_tokens"], 12 + generated[index]);
  }
}

TEST_F(Answer, CompletionChunksCarryDigestsAndNoUsageUnasked) {
  const auto events = stream({.endpoint = Endpoint::kCompletions}, "ok", FinishReason::kLength, true);
  ASSERT_EQ(events.size(), 4u);
  const Json first = Json::parse(events[0]);
  EXPECT_EQ(first["object"], "text_completion");
  EXPECT_EQ(first["choices"][0]["text"], "o");
  EXPECT_FALSE(first.contains("usage"));
  EXPECT_EQ(first["logits_digest"], "0000000000000abd");
  EXPECT_EQ(first["token_id"], 'o');
  const Json last = Json::parse(events[2]);
  EXPECT_EQ(last["choices"][0]["finish_reason"], "length");
  EXPECT_EQ(last["timings"]["ttft_ms"], 1.5);
  EXPECT_EQ(last["timings"]["queue_ms"], 1.0);
}

TEST_F(Answer, ACharacterIsNeverSplitOverChunks) {
  const auto events = stream({.endpoint = Endpoint::kCompletions}, "\xc3\xa9!\xe2\x82", FinishReason::kLength, false);
  ASSERT_EQ(events.size(), 7u);
  const auto text = [&](size_t index) { return Json::parse(events[index])["choices"][0]["text"].get<std::string>(); };
  EXPECT_EQ(text(0), "");
  EXPECT_EQ(text(1), "\xc3\xa9");
  EXPECT_EQ(text(2), "!");
  EXPECT_EQ(text(3) + text(4), "");
  EXPECT_EQ(text(5), "\xef\xbf\xbd");  // the finish chunk brings what was left: half a character
}

TEST_F(Answer, AStopStringEndsTheStreamAndItsCount) {
  stops_ = {"STOP"};
  const auto events =
      stream({.endpoint = Endpoint::kCompletions, .usage_null = true}, "aSxSTOPzz", FinishReason::kLength, false);
  ASSERT_EQ(events.size(), 10u) << "seven tokens, finish, usage, [DONE]";
  std::string text;
  for (size_t index = 0; index < 8; ++index) text += Json::parse(events[index])["choices"][0]["text"];
  EXPECT_EQ(text, "aSx");
  EXPECT_EQ(Json::parse(events[7])["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(Json::parse(events[8])["usage"]["completion_tokens"], 7);
}

TEST_F(Answer, AnAnswerThatEndsInsideAStopStringIsWhole) {
  stops_ = {"STOP"};
  const auto events = stream({.endpoint = Endpoint::kCompletions}, "aSTO", FinishReason::kLength, false);
  const Json last = Json::parse(events[events.size() - 2]);
  EXPECT_EQ(last["choices"][0]["text"], "STO");
  EXPECT_EQ(last["choices"][0]["finish_reason"], "length");
}

TEST_F(Answer, AStopTokenIsNoPartOfTheText) {
  std::string streamed;
  OpenAiAnswer stream({}, tokenizer_, {.digests = true}), whole({}, tokenizer_, {.digests = true});
  for (const StreamToken& token : {StreamToken{{}, 0, 'a', 0, {}, false}, StreamToken{{}, 1, '.', 0, {}, true}}) {
    stream.stream_token(0, token, streamed);
    whole.add_token(0, token);
  }
  EXPECT_EQ(Json::parse(payloads(streamed).at(1))["choices"][0]["text"], "");
  whole.add_end(0, end_of(FinishReason::kStop));
  const Json body = Json::parse(whole.body());
  EXPECT_EQ(body["choices"][0]["text"], "a");
  EXPECT_EQ(body["token_ids"], Json({'a', '.'}));
}

TEST_F(Answer, ErrorsBodiesKeepOpenAisFourKeys) {
  const Json error = Json::parse(error_body({.status = 400, .message = "m", .param = "p", .code = "c"}))["error"];
  EXPECT_EQ(error, (Json{{"message", "m"}, {"type", "invalid_request_error"}, {"param", "p"}, {"code", "c"}}));
  const Json bare = Json::parse(error_body({.status = 500, .message = "\xff"}))["error"];
  EXPECT_TRUE(bare["param"].is_null() && bare["code"].is_null());
  EXPECT_EQ(bare["message"], "\xef\xbf\xbd");
}

}  // namespace
}  // namespace spillway
