// The supervisor over tiny shell children, which find the descriptor to say they are ready as number 3.
#include "cli/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spdlog/sinks/ostream_sink.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "common/unique_fd.h"

namespace spillway {
namespace {

class SupervisorTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "/spillway-supervisor-XXXXXX";
    ASSERT_NE(::mkdtemp(folder_.data()), nullptr);
    ASSERT_EQ(::sigprocmask(SIG_SETMASK, nullptr, &mask_), 0);
  }
  void TearDown() override { ::sigprocmask(SIG_SETMASK, &mask_, nullptr); }

  // A child that appends a line to `log_` at each start, with $starts as the number of lines.
  ChildSpec child(const std::string& name, const std::string& script) const {
    const std::string file = folder_ + "/" + name;
    return {name, {"-c", "echo started >> " + file + "; starts=$(wc -l < " + file + "); " + script}};
  }
  int run(std::vector<ChildSpec> specs, Duration drain_max = std::chrono::seconds(30)) const {
    Supervisor::Config config;
    config.executable = "/bin/sh";
    config.restart.delay = std::chrono::milliseconds(20);
    config.restart.delay_max = std::chrono::milliseconds(40);
    config.drain_max = drain_max;
    return Supervisor(config, std::move(specs)).run();
  }
  long lines(const std::string& name) const {
    std::ifstream file(folder_ + "/" + name);
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  }
  std::string folder_;
  sigset_t mask_{};
};

// The sleeps are those of children that wait for a file or a signal; what is checked hangs on files and exits.
constexpr const char* kStopSupervisor = "trap 'exit 0' TERM; kill -TERM $PPID; while :; do sleep 0.02; done";
constexpr const char* kStaysUntilStopped = "trap 'exit 0' TERM; while :; do sleep 0.02; done";

TEST_F(SupervisorTest, AChildThatCannotStartAtAllStopsTheOthers) {
  const std::string says_so = "trap 'echo stopped >> " + folder_ + "/other; exit 0' TERM; echo > " + folder_ +
                              "/up; while :; do sleep 0.02; done";
  const std::string waits = "while [ ! -e " + folder_ + "/up ]; do sleep 0.01; done; exit 2";
  EXPECT_EQ(run({child("other", says_so), child("broken", waits)}), kExitCannotStart);
  EXPECT_EQ(lines("broken"), 1);
  EXPECT_EQ(lines("other"), 2);
}

TEST_F(SupervisorTest, AChildThatWasOnceReadyIsStartedAgainWhateverItsExitCode) {
  const std::string script =
      std::string("case $starts in 1) printf x >&3; exit 1;; 2|3) exit 2;; esac; ") + kStopSupervisor;
  EXPECT_EQ(run({child("node", script)}), 0);
  EXPECT_EQ(lines("node"), 4);
}

TEST_F(SupervisorTest, ACrashBeforeItWasReadyProvesNothing) {
  EXPECT_EQ(run({child("node", "[ $starts = 1 ] && kill -9 $$; exit 2")}), kExitCannotStart);
  EXPECT_EQ(lines("node"), 2);
}

TEST_F(SupervisorTest, AReadyChildRefusedAtRunTimeIsStartedAgain) {
  const std::string script = std::string("printf x >&3; [ $starts = 1 ] && exit 2; ") + kStopSupervisor;
  EXPECT_EQ(run({child("node", script), child("other", kStaysUntilStopped)}), 0);
  EXPECT_EQ(lines("node"), 2);
  EXPECT_EQ(lines("other"), 1);
}

// Descriptors for one child only: the other's start fails where a fork would.
TEST_F(SupervisorTest, AStartThatFailsHereStopsTheChildrenStartedBefore) {
  const int next = UniqueFd(::open("/dev/null", O_RDONLY | O_CLOEXEC)).get();
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = static_cast<rlim_t>(next) + 3;  // the signals', and both ends of one pipe
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  const ChildSpec first{"first", {"-c", "exec sleep 60"}};  // opens nothing
  EXPECT_EQ(run({first, child("second", kStaysUntilStopped)}), kExitCannotStart);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(lines("second"), 0);
  EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);  // the first one is gone and reaped
  EXPECT_EQ(errno, ECHILD);
}

TEST_F(SupervisorTest, TheFrontDrainsBeforeTheOthersAreStopped) {
  const std::string order = folder_ + "/order";
  ChildSpec front = child("front", "trap 'sleep 0.2; echo front >> " + order +
                                       "; exit 0' TERM; kill -TERM $PPID; while :; do sleep 0.02; done");
  front.front = true;
  const ChildSpec node = child("node", "trap 'echo node >> " + order + "; exit 0' TERM; while :; do sleep 0.02; done");
  EXPECT_EQ(run({node, front}), 0);
  std::ifstream file(order);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), "front\nnode\n");
}

TEST_F(SupervisorTest, AFrontThatCrashesInItsDrainIsNoGoodEnd) {
  ChildSpec front =
      child("front", "printf x >&3; trap 'kill -KILL $$' TERM; kill -TERM $PPID; while :; do sleep 0.02; done");
  front.front = true;
  EXPECT_EQ(run({front, child("node", kStaysUntilStopped)}), kExitCutShort);
}

TEST_F(SupervisorTest, ANodeThatDiesWhileTheFrontDrainsIsStartedAgain) {
  ChildSpec front = child("front", "trap 'echo > " + folder_ + "/draining; while [ $(wc -l < " + folder_ +
                                       "/node) -lt 2 ]; do sleep 0.01; done; exit 0' TERM; while [ ! -e " + folder_ +
                                       "/node ]; do sleep 0.01; done; kill -TERM $PPID; while :; do sleep 0.02; done");
  front.front = true;
  const std::string dies_once = "printf x >&3; while [ $starts = 1 ]; do [ -e " + folder_ +
                                "/draining ] && kill -9 $$; sleep 0.01; done; " + std::string(kStaysUntilStopped);
  EXPECT_EQ(run({front, child("node", dies_once)}), 0);
  EXPECT_EQ(lines("node"), 2);
}

TEST_F(SupervisorTest, AFrontThatDoesNotDrainInTimeIsKilledAndTheExitCodeSaysSo) {
  ChildSpec front = child("front", "trap '' TERM; kill -TERM $PPID; while :; do sleep 0.02; done");
  front.front = true;
  EXPECT_EQ(run({front, child("node", kStaysUntilStopped)}, std::chrono::milliseconds(300)), kExitCutShort);
}

TEST_F(SupervisorTest, ASecondSignalEndsEverythingWithinSeconds) {
  ChildSpec front = child("front", "trap 'kill -INT $PPID' TERM; kill -TERM $PPID; while :; do sleep 0.02; done");
  front.front = true;
  const TimePoint begin = steady_now();
  EXPECT_EQ(run({front, child("node", "trap '' TERM; while :; do sleep 0.02; done")}), kExitCutShort);
  EXPECT_LT(steady_now() - begin, std::chrono::seconds(2)) << "as docs/operations.md says; the drain limit is 30 s";
}

TEST_F(SupervisorTest, AChildThatWasToldToLeaveAndDidIsStartedAgain) {
  EXPECT_EQ(run({child("node", std::string("printf x >&3; [ $starts = 1 ] && exit 0; ") + kStopSupervisor)}), 0);
  EXPECT_EQ(lines("node"), 2);
}

TEST_F(SupervisorTest, ACrashLoopIsSaidOnceAndGoesOn) {
  std::ostringstream log;
  const auto before = spdlog::default_logger();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("", std::make_shared<spdlog::sinks::ostream_sink_st>(log)));
  const int code =
      run({child("node", std::string("printf x >&3; [ $starts -lt 8 ] && kill -9 $$; ") + kStopSupervisor)});
  spdlog::set_default_logger(before);
  const std::string said = log.str();
  EXPECT_EQ(code, 0);
  EXPECT_EQ(lines("node"), 8);
  const size_t at = said.find("crash loop: node ended 5 times");
  ASSERT_NE(at, std::string::npos);
  EXPECT_EQ(said.find("crash loop", at + 1), std::string::npos);
  EXPECT_NE(said.find("memory", at), std::string::npos);
}

TEST_F(SupervisorTest, AFrontThatKeepsCrashingEndsEverything) {
  ChildSpec front = child("front", "printf x >&3; exit 1");
  front.front = true;
  EXPECT_EQ(run({front, child("node", kStaysUntilStopped)}), kExitCrashLoop);
  EXPECT_EQ(lines("front"), 5);
}

TEST_F(SupervisorTest, AnExecutableThatIsNotThereIsNamed) {
  testing::internal::CaptureStderr();
  Supervisor::Config config;
  config.executable = folder_ + "/absent";
  const int code = Supervisor(config, {{"node", {}}}).run();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, kExitCannotStart);
  EXPECT_NE(said.find("cannot execute " + folder_ + "/absent: No such file"), std::string::npos) << said;
}

}  // namespace
}  // namespace spillway
