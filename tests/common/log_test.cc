#include "common/log.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "tests/support/captured_log.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

// Forges a line, speaks to a terminal, ends a quotation, hides text, and is no UTF-8.
const std::string kHostile =
    "a\n12:00:00.000 info  [gateway] forged pid=1\r\x1b[31m\" level=\"x\\ \xe2\x80\xae \x7f\t\xc2\x85 \xff\xfe";

bool plain_ascii(const std::string& line) {
  return std::ranges::all_of(line, [](char c) { return c >= 0x20 && c <= 0x7e; });
}

// Every digit as a 0.
std::string shape(std::string text) {
  for (char& c : text)
    if (c >= '0' && c <= '9') c = '0';
  return text;
}

TEST(Log, AJsonLineIsOneObjectWithTimeLevelProcessMessageAndFields) {
  CapturedLog log(LogFormat::kJson, spdlog::level::info, "prefill 0");
  log_event(spdlog::level::warn, "peer gone", {{"peer", 7u}, {"balance", -3}, {"ms", 1.23456}, {"name", "decode 0"}});
  spdlog::info("started {} pid={}", "decode 0", 42);
  const std::vector<std::string> lines = log.take_lines();
  ASSERT_EQ(lines.size(), 2u);
  Json first = Json::parse(lines[0]), second = Json::parse(lines[1]);
  EXPECT_EQ(shape(first["time"].get<std::string>()), "0000-00-00T00:00:00.000Z") << lines[0];
  first.erase("time");
  second.erase("time");
  EXPECT_EQ(first, Json::parse(R"({"level": "warning", "process": "prefill 0", "message": "peer gone", "peer": 7,
                                   "balance": -3, "ms": 1.235, "name": "decode 0"})"));
  EXPECT_EQ(second, Json::parse(R"({"level": "info", "process": "prefill 0", "message": "started decode 0 pid=42"})"));
}

TEST(Log, ATextLineIsTheEventAndItsFields) {
  CapturedLog log(LogFormat::kText, spdlog::level::info, "gateway");
  log_event(spdlog::level::info, "peer up", {{"peer", 7u}, {"name", "decode 0"}, {"boot", "00ff"}});
  const std::vector<std::string> lines = log.take_lines();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(shape(lines[0].substr(0, 12)), "00:00:00.000");
  EXPECT_EQ(lines[0].substr(12), " info  [gateway] peer up peer=7 name=\"decode 0\" boot=00ff");
}

TEST(Log, NoTextForgesALineOrSpeaksToATerminal) {
  for (const LogFormat format : {LogFormat::kText, LogFormat::kJson}) {
    CapturedLog log(format, spdlog::level::trace, "x\n\x1b\"" + kHostile);
    log_event(spdlog::level::info, kHostile, {{"reason", kHostile}, {"after", 1u}});
    spdlog::info("in the middle: {}", kHostile);
    const std::vector<std::string> lines = log.take_lines();
    ASSERT_EQ(lines.size(), 2u);
    for (const std::string& line : lines) EXPECT_TRUE(plain_ascii(line)) << line;
    if (format == LogFormat::kText) continue;
    const Json event = Json::parse(lines[0]);
    EXPECT_EQ(event["level"], "info");
    EXPECT_EQ(event["after"], 1);
    EXPECT_TRUE(event["reason"].get<std::string>().starts_with("a\n12:00:00.000 info  [gateway] forged pid=1\r\x1b["));
    EXPECT_EQ(event.size(), 6u);
    EXPECT_EQ(Json::parse(lines[1]).size(), 4u);
  }
}

TEST(Log, NoValueForgesAField) {
  CapturedLog log(LogFormat::kText);
  log_event(spdlog::level::info, "event", {{"name", "x pid=1"}, {"reason", "\" pid=2"}, {"word", "a=b"}});
  EXPECT_TRUE(log.take().ends_with(R"(event name="x pid=1" reason="\" pid=2" word="a=b")"
                                   "\n"));
}

TEST(Log, EmptyTextsAreLeftOutAndLowLevelsAreNotWritten) {
  CapturedLog log(LogFormat::kText, spdlog::level::info);
  log_event(spdlog::level::debug, "hidden", {});
  log_event(spdlog::level::info, "shown", {{"trace_id", ""}, {"peer", 0u}});
  EXPECT_TRUE(log.take().ends_with("shown peer=0\n"));
}

TEST(Log, WordsForPeopleAreLinesOfAJsonLogAndPlainElsewhere) {
  {
    CapturedLog log(LogFormat::kJson);
    say("  weights  7 GiB");
    say_fatal("no \"memory\"\nleft");
    const std::vector<std::string> lines = log.take_lines();
    ASSERT_EQ(lines.size(), 2u);
    EXPECT_EQ(Json::parse(lines[0])["message"], "  weights  7 GiB");
    const Json line = Json::parse(lines[1]);
    EXPECT_EQ(line["level"], "critical");
    EXPECT_EQ(line["message"], "no \"memory\"\nleft");
  }
  CapturedLog log(LogFormat::kText);
  say("  weights  7 GiB");
  say_fatal("no memory left");
  EXPECT_EQ(log.take(), "  weights  7 GiB\nspillway: no memory left\n");
}

TEST(Log, AutoIsJsonForServersWhoseStderrIsNoTerminal) {
  CapturedLog log(LogFormat::kText);  // stderr is a file now
  EXPECT_EQ(log_format_of("auto", true), LogFormat::kJson);
  EXPECT_EQ(log_format_of("text", true), LogFormat::kText);
  EXPECT_EQ(log_format_of("auto", false), LogFormat::kText);
  EXPECT_EQ(log_format_of("json", false), LogFormat::kJson);
}

}  // namespace
}  // namespace spillway
