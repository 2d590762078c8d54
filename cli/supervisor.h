#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/clock.h"

namespace spillway {

struct ChildSpec {
  std::string name;                    // "prefill 0", for people
  std::vector<std::string> arguments;  // of this same executable, after argv[0]
};

// Keeps child processes running: a child that ends is named with how it ended and started again after `restart_delay`;
// one that exits with a configuration error (exit code 2) ends everything, since a restart cannot help. SIGTERM and
// SIGINT are passed on; children that are still there after `stop_grace` are killed. Children die with the supervisor
// (PR_SET_PDEATHSIG). One thread; blocks SIGCHLD, SIGTERM and SIGINT for the calling process.
class Supervisor {
 public:
  struct Config {
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
    TimePoint start_again = kNever;
  };
  void start(Child& child);
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
