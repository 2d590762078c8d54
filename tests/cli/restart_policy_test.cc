#include "cli/restart_policy.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

using std::chrono::seconds;

class RestartPolicyTest : public testing::Test {
 protected:
  // Starts, loads for `loads`, works for `works` and ends.
  Duration end_after(Duration works, Duration loads = seconds(0)) {
    policy.started();
    now += loads;
    policy.ready(now);
    now += works;
    return policy.ended(now);
  }
  Duration end_in_loading(Duration loads) {
    policy.started();
    now += loads;
    return policy.ended(now);
  }
  RestartPolicy policy{{.delay = seconds(1), .delay_max = seconds(6), .settled_after = seconds(30), .loop_ends = 5}};
  TimePoint now{std::chrono::hours(1)};
};

TEST_F(RestartPolicyTest, EachDelayIsTwiceTheLastUpToTheCap) {
  EXPECT_EQ(end_after(seconds(1)), seconds(1));
  EXPECT_EQ(end_after(seconds(1)), seconds(2));
  EXPECT_EQ(end_after(seconds(1)), seconds(4));
  EXPECT_EQ(end_after(seconds(1)), seconds(6));
}

TEST_F(RestartPolicyTest, AProcessThatStayedAtWorkBeginsAnew) {
  end_after(seconds(1));
  end_after(seconds(1));
  EXPECT_EQ(end_after(seconds(30)), seconds(1));
  EXPECT_EQ(end_in_loading(seconds(60)), seconds(2)) << "it was never ready";
}

TEST_F(RestartPolicyTest, LongLoadingIsNoWork) {
  for (int end = 1; end <= 5; ++end) end_after(seconds(1), seconds(60));
  EXPECT_TRUE(policy.loops());
  policy.started();
  now += seconds(60);
  policy.ready(now);
  EXPECT_FALSE(policy.recovers(now + seconds(29)));
  EXPECT_TRUE(policy.recovers(now + seconds(30)));
}

TEST_F(RestartPolicyTest, EndsInARowAreACrashLoopSaidOnce) {
  for (int end = 1; end <= 4; ++end) {
    end_after(seconds(2));
    EXPECT_FALSE(policy.loops());
  }
  EXPECT_EQ(policy.next_deadline(), kNever);
  end_after(seconds(2));
  EXPECT_TRUE(policy.loops() && policy.loop_begins());
  EXPECT_EQ(policy.ends_within(now), seconds(8));
  EXPECT_EQ(end_after(seconds(2)), seconds(6));
  EXPECT_TRUE(policy.loops() && !policy.loop_begins());
}

TEST_F(RestartPolicyTest, ACrashLoopIsOverOnceAProcessStaysUp) {
  for (int end = 1; end <= 5; ++end) end_after(seconds(1));
  policy.started();
  EXPECT_EQ(policy.next_deadline(), kNever);
  EXPECT_FALSE(policy.recovers(now + seconds(31)));
  policy.ready(now);
  EXPECT_EQ(policy.next_deadline(), now + seconds(30));
  EXPECT_FALSE(policy.recovers(now + seconds(29)));
  EXPECT_TRUE(policy.recovers(now + seconds(30)));
  EXPECT_FALSE(policy.recovers(now + seconds(31)));
  EXPECT_FALSE(policy.loops());
}

}  // namespace
}  // namespace spillway
