#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace spillway {

// Starts `executable` (a path; "/proc/self/exe" is this one) with `arguments` after argv[0]. The child has the default
// signal mask and dies with the calling process (PR_SET_PDEATHSIG: call from its main thread). Throws SetupError when
// it cannot fork.
pid_t spawn_child(const std::string& executable, std::vector<std::string> arguments);

// SIGTERM to all, then SIGKILL to those still there after `grace_ms`; reaps them and sets their pid to -1.
void stop_children(std::vector<pid_t>& pids, int grace_ms);

}  // namespace spillway
