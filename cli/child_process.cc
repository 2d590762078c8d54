#include "cli/child_process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "cli/exit_codes.h"
#include "common/check.h"
#include "common/clock.h"
#include "common/log.h"

namespace spillway {

namespace {

// Only async-signal-safe calls.
void say_exec_failed(const char* executable, int error) {
  for (const char* part : {"spillway: cannot execute ", executable, ": ", ::strerrordesc_np(error), "\n"})
    if (::write(STDERR_FILENO, part, std::strlen(part)) < 0) return;
}

// Only async-signal-safe calls. Out of the way first: one may be where the other goes.
void place_descriptors(const ChildDescriptors& from) {
  const int ready = from.ready < 0 ? -1 : ::fcntl(from.ready, F_DUPFD_CLOEXEC, kPackedFd + 1);
  const int packed = from.packed < 0 ? -1 : ::fcntl(from.packed, F_DUPFD_CLOEXEC, kPackedFd + 1);
  if (ready >= 0) ::dup2(ready, kReadyFd);
  if (packed >= 0) ::dup2(packed, kPackedFd);
}

}  // namespace

pid_t spawn_child(const std::string& executable, std::vector<std::string> arguments,
                  const ChildDescriptors& descriptors, int niceness) {
  arguments.insert(arguments.begin(), "spillway");
  if (descriptors.ready >= 0) arguments.insert(arguments.end(), {"--ready-fd", std::to_string(kReadyFd)});
  if (descriptors.packed >= 0) arguments.insert(arguments.end(), {"--packed-fd", std::to_string(kPackedFd)});
  std::vector<char*> pointers;
  for (std::string& argument : arguments) pointers.push_back(argument.data());
  pointers.push_back(nullptr);

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) throw SetupError(fmt::format("cannot fork: {}", std::strerror(errno)));
  if (pid == 0) {
    // Only async-signal-safe calls from here to exec.
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::setpgid(0, 0);
    if (::getppid() != parent) ::_exit(kExitFailed);
    (void)::nice(niceness);  // to be nicer is everybody's right
    place_descriptors(descriptors);
    ::execv(executable.c_str(), pointers.data());
    say_exec_failed(executable.c_str(), errno);
    ::_exit(kExitCannotStart);
  }
  return pid;
}

void ReadySignal::announce() {
  const UniqueFd fd = std::move(fd_);
  const char byte = 1;
  if (fd && ::write(fd.get(), &byte, 1) != 1) spdlog::warn("the supervisor does not hear: {}", std::strerror(errno));
}

std::string how_it_ended(int status) {
  if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
    return "killed by signal 9 (Killed), not by this process: if memory ran out the kernel's log says so (dmesg), then "
           "lower --device-memory, --max-sequences or --max-model-len";
  if (WIFSIGNALED(status))
    return fmt::format("killed by signal {} ({})", WTERMSIG(status), ::strsignal(WTERMSIG(status)));
  if (WEXITSTATUS(status) == kExitCannotStart) return "exited with code 2 (its reason is above)";
  return fmt::format("exited with code {}", WEXITSTATUS(status));
}

void stop_children(std::vector<pid_t>& pids, int grace_ms) {
  for (const pid_t pid : pids)
    if (pid > 0) ::kill(pid, SIGTERM);
  sigset_t child_ended;
  ::sigemptyset(&child_ended);
  ::sigaddset(&child_ended, SIGCHLD);
  sigset_t before;
  ::pthread_sigmask(SIG_BLOCK, &child_ended, &before);
  const TimePoint deadline = steady_now() + std::chrono::milliseconds(grace_ms);
  const auto any_left = [&] { return std::any_of(pids.begin(), pids.end(), [](pid_t pid) { return pid > 0; }); };
  while (any_left() && steady_now() < deadline) {
    for (pid_t& pid : pids)
      if (pid > 0 && ::waitpid(pid, nullptr, WNOHANG) == pid) pid = -1;
    const timespec slice{0, 20'000'000};
    if (any_left()) ::sigtimedwait(&child_ended, nullptr, &slice);
  }
  for (pid_t& pid : pids) {
    if (pid <= 0) continue;
    spdlog::warn("pid {} did not stop within {} ms: killing it", pid, grace_ms);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    pid = -1;
  }
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

}  // namespace spillway
