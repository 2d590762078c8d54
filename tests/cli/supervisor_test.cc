// The supervisor over tiny shell children, which find the descriptor to say they are ready as number 3.
#include "cli/supervisor.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
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
  int run(std::vector<ChildSpec> specs) const {
    return Supervisor({.executable = "/bin/sh",
                       .restart_delay = std::chrono::milliseconds(20),
                       .stop_grace = std::chrono::seconds(5)},
                      std::move(specs))
        .run();
  }
  long lines(const std::string& name) const {
    std::ifstream file(folder_ + "/" + name);
    return std::count(std::istreambuf_iterator<char>(file), {}, '\n');
  }
  std::string folder_;
  sigset_t mask_{};
};

constexpr const char* kStopSupervisor = "kill -TERM $PPID; exec sleep 60";
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

TEST_F(SupervisorTest, AnExecutableThatIsNotThereIsNamed) {
  testing::internal::CaptureStderr();
  const int code =
      Supervisor({.executable = folder_ + "/absent", .restart_delay = {}, .stop_grace = {}}, {{"node", {}}}).run();
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, kExitCannotStart);
  EXPECT_NE(said.find("cannot execute " + folder_ + "/absent: No such file"), std::string::npos) << said;
}

}  // namespace
}  // namespace spillway
