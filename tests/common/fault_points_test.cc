#include "common/fault_points.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <string>
#include <thread>
#include <vector>

#include "common/check.h"

namespace spillway {
namespace {

TEST(FaultPoints, UnarmedPointsDoNothing) {
  FaultPoints faults({});
  for (const std::string_view name : FaultPoints::names()) {
    faults.pass(name);
    EXPECT_FALSE(faults.spoils(name));
  }
}

TEST(FaultPointsDeathTest, ArmedPointKillsAtTheNthPass) {
  EXPECT_EXIT(
      {
        FaultPoints faults(std::vector<std::string>{"decode-step:3"});
        faults.pass("decode-step");
        faults.pass("prefill-step");
        faults.pass("decode-step");
        faults.pass("decode-step");
      },
      testing::KilledBySignal(SIGKILL), "");
}

TEST(FaultPoints, ArmedToStopHaltsOnceAndGoesOn) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    FaultPoints faults(std::vector<std::string>{"decode-step:2:stop"});
    for (int pass = 0; pass < 4; ++pass) faults.pass("decode-step");
    ::_exit(7);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP);
  ::kill(child, SIGCONT);
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7);
}

TEST(FaultPoints, ArmedToSpoilSaysSoAtTheNthPassAndOnlyThen) {
  FaultPoints faults(std::vector<std::string>{"decode-nan:2"});
  std::vector<bool> spoilt;
  for (int pass = 0; pass < 4; ++pass) {
    EXPECT_FALSE(faults.spoils("prefill-nan"));
    spoilt.push_back(faults.spoils("decode-nan"));
  }
  EXPECT_EQ(spoilt, (std::vector<bool>{false, true, false, false}));
}

TEST(FaultPoints, ArmedToWedgeHoldsThePassingThreadOnly) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    FaultPoints faults(std::vector<std::string>{"decode-compute:2:wedge"});
    std::atomic<int> passes = 0;
    std::thread compute([&] {
      for (int pass = 0; pass < 3; ++pass) {
        faults.pass("decode-compute");
        ++passes;
      }
    });
    while (passes < 1) ::sched_yield();
    const int before = passes;  // this thread lives
    ::kill(::getpid(), SIGCONT);
    compute.join();
    ::_exit(before == 1 ? 7 : 8);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, WUNTRACED), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

TEST(FaultPoints, UnknownNameOrCountNamesTheRemedy) {
  const auto message = [](const std::string& spec) -> std::string {
    try {
      FaultPoints faults(std::vector<std::string>{spec});
    } catch (const SetupError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message("no-such-point").find("prefill-received"), std::string::npos);
  EXPECT_NE(message("decode-step:0").find("at least 1"), std::string::npos);
  EXPECT_NE(message("decode-step:0:stop").find("at least 1"), std::string::npos);
  EXPECT_NE(message("decode-nan:2:stop").find("leave the last part out"), std::string::npos);
  EXPECT_NE(message("decode-step:x").find("at least 1"), std::string::npos);
}

}  // namespace
}  // namespace spillway
