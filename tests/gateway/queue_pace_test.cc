#include "gateway/queue_pace.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

constexpr TimePoint at(double s) {
  return TimePoint(std::chrono::duration_cast<Duration>(std::chrono::duration<double>(s)));
}

TEST(QueuePace, IsTheQueueOverTheRateOfTheLastTenSeconds) {
  QueuePace pace;
  EXPECT_EQ(pace.drains_in_s(), 1u);
  for (int tenth = 0; tenth <= 200; ++tenth) pace.observe(at(tenth / 10.0), static_cast<uint64_t>(tenth / 5), 30);
  EXPECT_EQ(pace.drains_in_s(), 15u);  // two a second
  for (int second = 21; second <= 31; ++second) pace.observe(at(second), 40 + 10 * (second - 20), 30);
  EXPECT_EQ(pace.drains_in_s(), 3u) << "the slow past counts no more";
  pace.observe(at(31.5), 150, 0);
  EXPECT_EQ(pace.drains_in_s(), 1u);
}

TEST(QueuePace, NobodyServedIsTheLongestWait) {
  QueuePace pace;
  for (int second = 0; second < 5; ++second) pace.observe(at(second), 7, 2);
  EXPECT_EQ(pace.drains_in_s(), 60u);
  pace.observe(at(5), 8, 1000);
  EXPECT_EQ(pace.drains_in_s(), 60u);
}

}  // namespace
}  // namespace spillway
