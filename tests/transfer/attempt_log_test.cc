#include "transfer/attempt_log.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

RequestId request(uint64_t counter) { return {BootId{1}, counter}; }

TEST(EndedAttempts, RemembersAnAttemptAndAllBeforeIt) {
  EndedAttempts ended(4);
  ended.add(request(1), Epoch{3});
  EXPECT_TRUE(ended.contains(request(1), Epoch{3}));
  EXPECT_TRUE(ended.contains(request(1), Epoch{1}));
  EXPECT_FALSE(ended.contains(request(1), Epoch{4}));
  EXPECT_FALSE(ended.contains(request(2), Epoch{1}));
}

TEST(EndedAttempts, AnOlderAttemptThatEndsLaterHidesNothing) {
  EndedAttempts ended(4);
  ended.add(request(1), Epoch{3});
  ended.add(request(1), Epoch{2});
  EXPECT_TRUE(ended.contains(request(1), Epoch{3}));
}

TEST(EndedAttempts, ForgetsTheOldestRequestFirstAndStaysBounded) {
  EndedAttempts ended(2);
  for (uint64_t counter = 1; counter <= 3; ++counter) ended.add(request(counter), Epoch{1});
  EXPECT_EQ(ended.size(), 2u);
  EXPECT_FALSE(ended.contains(request(1), Epoch{1}));
  EXPECT_TRUE(ended.contains(request(2), Epoch{1}));
  EXPECT_TRUE(ended.contains(request(3), Epoch{1}));
}

Work work(size_t prompt, uint32_t output) {
  Work made;
  made.prompt.assign(prompt, 5);
  made.output_tokens_max = output;
  return made;
}

TEST(CheckWork, RefusesWhatCannotRun) {
  EXPECT_TRUE(check_work(work(4, 4), 6, 8));
  EXPECT_EQ(check_work(work(0, 4), 6, 8).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(check_work(work(4, 0), 6, 8).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(check_work(work(4, 4), 5, 8).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(check_work(work(4, 5), 6, 8).error().code, ErrorCode::kTooLong);
  Work outside = work(4, 4);
  outside.stop_tokens = {5, 6};
  EXPECT_EQ(check_work(outside, 7, 8).has_value(), true);
  EXPECT_EQ(check_work(outside, 6, 8).error().detail, "stop token 1 has id 6, but the vocabulary ends at 6");
  outside.stop_tokens.clear();
  outside.sampling.logit_bias = {{6, 1}};
  EXPECT_EQ(check_work(outside, 6, 8).error().detail, "logit_bias entry 0 has id 6, but the vocabulary ends at 6");
  EXPECT_EQ(check_work(work(4, UINT32_MAX), 6, 8).error().code, ErrorCode::kTooLong);  // the sum overflows 32 bits
}

TEST(FinishOf, AStopTokenWinsOverTheLength) {
  Work stops = work(1, 2);
  stops.stop_tokens = {9};
  EXPECT_EQ(finish_of(stops, 0, 3), FinishReason::kNone);
  EXPECT_EQ(finish_of(stops, 0, 9), FinishReason::kStop);
  EXPECT_EQ(finish_of(stops, 1, 3), FinishReason::kLength);
  EXPECT_EQ(finish_of(stops, 1, 9), FinishReason::kStop);
}

TEST(TimingUs, SaturatesAtItsRange) {
  EXPECT_EQ(timing_us(std::chrono::milliseconds(2)), 2000u);
  EXPECT_EQ(timing_us(-std::chrono::seconds(1)), 0u);
  EXPECT_EQ(timing_us(std::chrono::hours(24)), UINT32_MAX);
}

}  // namespace
}  // namespace spillway
