#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "common/unique_fd.h"

namespace spillway {

// Descriptors that a child has from its parent, each -1 where there is none: where it says once that it is ready
// (ReadySignal), and the packed weights.
struct ChildDescriptors {
  int ready = -1, packed = -1;
};
inline constexpr int kReadyFd = 3, kPackedFd = 4;  // what they are there

// Starts `executable` (a path; "/proc/self/exe" is this one) with `arguments` after argv[0]. The child has the default
// signal mask, a process group of its own, so that Ctrl-C reaches its parent only, and dies with the calling process
// (PR_SET_PDEATHSIG: call from its main thread). It is told of its descriptors by --ready-fd and --packed-fd. It is
// nicer than its parent by `niceness` (nice(2)). Throws SetupError when it cannot fork; a failed exec is said on stderr
// and exits with kExitCannotStart.
pid_t spawn_child(const std::string& executable, std::vector<std::string> arguments,
                  const ChildDescriptors& descriptors = {}, int niceness = 0);

// Tells the supervisor, if there is one (`ready_fd` >= 0), that this process is at work: once, then the descriptor is
// closed.
class ReadySignal {
 public:
  explicit ReadySignal(int ready_fd) : fd_(ready_fd) {}
  void announce();

 private:
  UniqueFd fd_;
};

// Of a status from waitpid(), for people: "exited with code 1".
std::string how_it_ended(int status);

// SIGTERM to all, then SIGKILL to those still there after `grace_ms`; reaps them and sets their pid to -1.
void stop_children(std::vector<pid_t>& pids, int grace_ms);

}  // namespace spillway
