#include "cli/supervisor.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "cli/child_process.h"
#include "common/check.h"
#include "common/log.h"

namespace spillway {
namespace {

sigset_t supervised_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGCHLD, SIGTERM, SIGINT}) ::sigaddset(&signals, signal);
  return signals;
}

}  // namespace

Supervisor::Supervisor(const Config& config, std::vector<ChildSpec> specs) : config_(config) {
  for (ChildSpec& spec : specs) children_.push_back({std::move(spec), -1, {}, false, kNever});
}

void Supervisor::start(Child& child, TimePoint now) {
  child.start_again = kNever;
  try {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw SetupError(fmt::format("pipe: {}", std::strerror(errno)));
    child.ready = UniqueFd(ends[0]);
    const UniqueFd ready(ends[1]);
    std::vector<std::string> arguments = child.spec.arguments;
    arguments.insert(arguments.end(), {"--ready-fd", std::to_string(kReadyFd)});
    const auto first = std::exchange(child.spec.first_arguments, {});
    arguments.insert(arguments.end(), first.begin(), first.end());
    child.pid = spawn_child(config_.executable, std::move(arguments), ready.get());
    spdlog::info("started {} pid={}", child.spec.name, child.pid);
  } catch (const SetupError& error) {
    ended(child, true, error.what(), now);
  }
}

void Supervisor::ended(Child& child, bool cannot_start, const std::string& how, TimePoint now) {
  char byte = 0;
  child.proven = child.proven || (child.ready && ::read(child.ready.get(), &byte, 1) == 1);
  child.ready = UniqueFd();
  if (cannot_start && !child.proven) {
    spdlog::error("{} cannot start: {}", child.spec.name, how);
    failed_ = true;
    return;
  }
  child.start_again = now + config_.restart_delay;
  spdlog::error("{} {}; its requests end in an error, it starts again in {:.1f} s", child.spec.name, how,
                seconds(config_.restart_delay));
}

void Supervisor::reap(TimePoint now) {
  for (Child& child : children_) {
    int status = 0;
    if (child.pid < 0 || ::waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    child.pid = -1;
    ended(child, WIFEXITED(status) && WEXITSTATUS(status) == kExitCannotStart, how_it_ended(status), now);
  }
}

void Supervisor::stop_all() {
  std::vector<pid_t> pids;
  for (const Child& child : children_) pids.push_back(child.pid);
  stop_children(pids, static_cast<int>(milliseconds(config_.stop_grace)));
}

TimePoint Supervisor::next_start() const {
  TimePoint earliest = kNever;
  for (const Child& child : children_) earliest = std::min(earliest, child.start_again);
  return earliest;
}

int Supervisor::run() {
  const sigset_t signals = supervised_signals();
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  const UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) throw SetupError(fmt::format("signalfd: {}", std::strerror(errno)));
  for (Child& child : children_)
    if (!failed_) start(child, steady_now());

  bool stopping = false;
  while (!stopping && !failed_) {
    int timeout_ms = -1;
    if (const TimePoint next = next_start(); next != kNever)
      timeout_ms = static_cast<int>(std::max(0.0, milliseconds(next - steady_now()))) + 1;
    pollfd entry{fd.get(), POLLIN, 0};
    ::poll(&entry, 1, timeout_ms);
    signalfd_siginfo info{};
    while (::read(fd.get(), &info, sizeof info) == sizeof info)
      stopping = stopping || info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT;
    const TimePoint now = steady_now();
    reap(now);
    for (Child& child : children_)
      if (child.start_again <= now) start(child, now);
  }
  stop_all();
  return failed_ ? kExitCannotStart : 0;
}

}  // namespace spillway
