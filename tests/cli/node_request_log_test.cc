#include "cli/node_request_log.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/support/captured_log.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

Work work_of(uint64_t counter, bool traced) {
  Work work;
  work.attempt = {{BootId{0xb007}, counter}, {BootId{0xb007}, counter}, Epoch{1}};
  work.prompt = {31337, 31338};
  work.output_tokens_max = 5;
  if (traced) work.trace = {0x4bf92f3577b34da6, 0xa3ce929d0e0e4736, counter};
  return work;
}

std::vector<Json> parsed(CapturedLog& log) {
  std::vector<Json> lines;
  for (const std::string& line : log.take_lines()) lines.push_back(Json::parse(line));
  return lines;
}

TEST(NodeRequestLog, EachLineNamesTheRequestAndItsTrace) {
  CapturedLog log(LogFormat::kJson);
  NodeRequestLog requests(4);
  const Work work = work_of(0x12, true);
  requests.received(Prefill{work, BootId{}});
  requests.sends(Token{work.attempt, 0, 31339, FinishReason::kNone, 0, {1500, 2500, 0, 0, 64}});
  requests.sends(Token{work.attempt, 1, 31340, FinishReason::kNone, 0, {}});
  requests.sends(Token{work.attempt, 2, 31341, FinishReason::kNone, 0, {}});  // no line
  requests.sends(Token{work.attempt, 3, 31342, FinishReason::kLength, 0, {}});
  requests.received(Cancel{work.attempt});
  const std::vector<Json> lines = parsed(log);
  std::vector<std::string> events;
  for (const Json& line : lines) {
    events.push_back(line["message"]);
    EXPECT_EQ(line["request"], "000000000000b00712") << line;
    EXPECT_EQ(line["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736") << line;
    EXPECT_EQ(line["parent_id"], "0000000000000012") << line;
    EXPECT_EQ(line["level"], "debug") << line;
    EXPECT_EQ(line.dump().find("3133"), std::string::npos) << "a token is in the log: " << line;
  }
  EXPECT_EQ(events, (std::vector<std::string>{"request_begun", "request_prefilled", "request_decodes", "request_done",
                                              "request_cancelled"}));
  EXPECT_EQ(lines.at(1)["wait_ms"], 1.5);
  EXPECT_EQ(lines.at(1)["compute_ms"], 2.5);
  EXPECT_EQ(lines.at(1)["cached_tokens"], 64);
  EXPECT_EQ(lines.at(3)["output_tokens"], 4);
}

TEST(NodeRequestLog, AFailureIsToldOnceAndLackOfSpaceIsRoutine) {
  CapturedLog log(LogFormat::kJson);
  NodeRequestLog requests(4);
  const Work work = work_of(1, false), other = work_of(2, false);
  for (int peers = 0; peers < 2; ++peers) requests.sends(Failed{work.attempt, ErrorCode::kPeerLost, "gone\n\x1b["});
  requests.sends(Failed{other.attempt, ErrorCode::kNoSpace, "full"});
  const std::vector<Json> lines = parsed(log);
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0]["level"], "warning");
  EXPECT_EQ(lines[0]["code"], "peer_lost");
  EXPECT_EQ(lines[0]["detail"], "gone\n\x1b[");
  EXPECT_FALSE(lines[0].contains("trace_id"));
  EXPECT_EQ(lines[1]["level"], "debug");
}

TEST(NodeRequestLog, TracesOfEndedRequestsAreForgotten) {
  CapturedLog log(LogFormat::kJson);
  NodeRequestLog requests(4);
  for (uint64_t counter = 1; counter <= 100; ++counter) {
    size_t kept = 0;
    requests.forget_ended([&](RequestId request) {
      ++kept;
      return request.counter == 1;
    });
    EXPECT_LE(kept, 5u);
    requests.received(Reserve{work_of(counter, true), BootId{}});
  }
  requests.sends(Failed{work_of(1, true).attempt, ErrorCode::kInternal, "x"});
  EXPECT_EQ(parsed(log).back()["parent_id"], "0000000000000001");
}

}  // namespace
}  // namespace spillway
