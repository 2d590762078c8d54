#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "cli/exit_codes.h"
#include "cli/restart_policy.h"
#include "common/clock.h"
#include "common/cpu_list.h"
#include "common/unique_fd.h"

namespace spillway {

struct ChildSpec {
  std::string name;                               // "prefill 0", for people
  std::vector<std::string> arguments;             // after argv[0]; --ready-fd is added
  std::vector<std::string> first_arguments = {};  // after those, at its first start only
  CpuList cpus = {};                              // that it runs on; empty: those of the supervisor
  int niceness = 0;                               // beyond the supervisor's
  bool front = false;                             // clients talk to it: it drains before the others are stopped
};

// Keeps child processes running: a child that ends, or could not be forked, is named with how and started again as its
// RestartPolicy says. One that cannot start (exit code 2, no fork) before it was ever ready ends everything: its
// configuration is wrong. Once it has been ready (ReadySignal) the machine's state is to blame, which may pass. A crash
// loop is said once, loudly, and goes on at the longest delay; of a front child it ends everything.
// The first SIGTERM or SIGINT is passed to the front children; once they have drained (`drain_max`), to the others,
// which have `stop_grace`. What is then still there is killed, and at a second signal everything within `now_grace`.
// Children die with the supervisor (PR_SET_PDEATHSIG). One thread; blocks SIGCHLD, SIGTERM and SIGINT for the calling
// process.
class Supervisor {
 public:
  struct Config {
    std::string executable = "/proc/self/exe";
    RestartPolicy::Config restart;
    Duration drain_max = std::chrono::seconds(33);
    Duration stop_grace = std::chrono::seconds(5);
    Duration now_grace = std::chrono::seconds(1);
    int packed_fd = -1;         // each child gets it (ChildDescriptors); stays the caller's
    std::string status_socket;  // told about crash loops (TroubleSender); empty: nobody
  };
  Supervisor(const Config& config, std::vector<ChildSpec> specs);
  // From here on they wait for run(), which else does it itself: before something is made that must be removed.
  static void block_signals();
  // Returns the process's exit code: 0 when all has drained after a signal, else one of exit_codes.h.
  int run();

 private:
  struct Child {
    ChildSpec spec;
    RestartPolicy policy;
    pid_t pid = -1;
    UniqueFd ready = {};    // of the present process: readable once it is at work
    bool is_ready = false;  // the present process is at work
    bool killed = false;    // the present process, by this one, as a second signal asks
    bool proven = false;    // one of its processes has been at work
    TimePoint start_again = kNever;
    std::string last_end = {};
  };
  enum class Phase : uint8_t { kRunning, kDraining, kStopping, kStopped };

  void start(Child& child, TimePoint now);
  void look_ready(Child& child, TimePoint now);
  void ended(Child& child, int status, TimePoint now);
  void failed_to_start(Child& child, const std::string& how, TimePoint now);
  void start_later(Child& child, const std::string& how, TimePoint now);
  void note_cut_short();
  void reap(TimePoint now);
  void on_signals(uint32_t count, TimePoint now);
  void advance(TimePoint now);
  void stop_rest(Duration grace, TimePoint now);
  bool any_alive(bool front_only) const;
  void signal(int number, bool front) const;
  void kill_left(const char* why);
  void tell_troubles(TimePoint now);
  TimePoint next_deadline() const;
  void wait(int signals) const;

  const Config config_;
  std::vector<Child> children_;
  Phase phase_ = Phase::kRunning;
  TimePoint phase_until_ = kNever, tell_at_ = kNever;
  uint32_t signals_ = 0;
  int exit_code_ = 0;
};

}  // namespace spillway
