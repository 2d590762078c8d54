#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/clock.h"
#include "common/unique_fd.h"

namespace spillway {

struct ChildSpec {
  std::string name;                               // "prefill 0", for people
  std::vector<std::string> arguments;             // after argv[0]; --ready-fd is added
  std::vector<std::string> first_arguments = {};  // after those, at its first start only
};

// Keeps child processes running: a child that ends, or could not be forked, is named with how and started again after
// `restart_delay`. One that cannot start (exit code 2, no fork) before it was ever ready ends everything: its
// configuration is wrong. Once it has been ready (ReadySignal) the machine's state is to blame, which may pass.
// SIGTERM and SIGINT are passed on; children that are still there after `stop_grace` are killed. Children die with the
// supervisor (PR_SET_PDEATHSIG). One thread; blocks SIGCHLD, SIGTERM and SIGINT for the calling process.
class Supervisor {
 public:
  struct Config {
    std::string executable = "/proc/self/exe";
    Duration restart_delay = std::chrono::seconds(1);
    Duration stop_grace = std::chrono::seconds(5);
  };
  Supervisor(const Config& config, std::vector<ChildSpec> specs);
  // Returns the process's exit code: 0 after a signal, kExitCannotStart when a child cannot start.
  int run();

 private:
  struct Child {
    ChildSpec spec;
    pid_t pid = -1;
    UniqueFd ready;       // of the present process: readable once it is at work
    bool proven = false;  // one of its processes has been at work
    TimePoint start_again = kNever;
  };
  void start(Child& child, TimePoint now);
  void ended(Child& child, bool cannot_start, const std::string& how, TimePoint now);
  void reap(TimePoint now);
  void stop_all();
  TimePoint next_start() const;

  Config config_;
  std::vector<Child> children_;
  bool failed_ = false;
};

// Exit codes of every subcommand.
inline constexpr int kExitFailed = 1;       // did not do what was asked
inline constexpr int kExitCannotStart = 2;  // configuration or machine: repeating it will not help

}  // namespace spillway
