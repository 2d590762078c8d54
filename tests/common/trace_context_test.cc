#include "common/trace_context.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

// The example of the specification.
const std::string kGood = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContext, AGoodHeaderIsReadAndWrittenBack) {
  const auto context = parse_traceparent(kGood);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_text(), "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(context->parent_text(), "00f067aa0ba902b7");
  EXPECT_EQ(parse_traceparent("00-00000000000000000000000000000001-0000000000000001-00")->trace_text(),
            "00000000000000000000000000000001");
}

TEST(TraceContext, LaterVersionsMayHaveMoreBehindADash) {
  EXPECT_TRUE(parse_traceparent("cc" + kGood.substr(2)).has_value());
  EXPECT_TRUE(parse_traceparent("cc" + kGood.substr(2) + "-what the future holds").has_value());
  EXPECT_FALSE(parse_traceparent("cc" + kGood.substr(2) + ".what").has_value());
  EXPECT_FALSE(parse_traceparent(kGood + "-more").has_value());
  EXPECT_FALSE(parse_traceparent("ff" + kGood.substr(2)).has_value());
}

TEST(TraceContext, EveryOtherByteOrLengthIsNoContext) {
  for (size_t size = 0; size < kGood.size(); ++size) EXPECT_FALSE(parse_traceparent(kGood.substr(0, size))) << size;
  for (size_t at = 0; at < kGood.size(); ++at) {
    for (const char bad : {'A', 'F', 'g', ' ', '\n', '\0', '_', '/', ':', '`'}) {
      std::string text = kGood;
      text[at] = bad;
      EXPECT_FALSE(parse_traceparent(text)) << at << " " << bad;
    }
  }
  EXPECT_FALSE(parse_traceparent(" " + kGood));
  EXPECT_FALSE(parse_traceparent(kGood + " "));
}

TEST(TraceContext, AnIdOfZerosIsNone) {
  EXPECT_FALSE(parse_traceparent("00-00000000000000000000000000000000-00f067aa0ba902b7-01"));
  EXPECT_FALSE(parse_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"));
}

}  // namespace
}  // namespace spillway
