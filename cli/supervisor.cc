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
#include <cstring>
#include <utility>

#include "cli/child_process.h"
#include "cli/trouble_socket.h"
#include "common/check.h"
#include "common/log.h"

namespace spillway {
namespace {

constexpr Duration kTellEvery = std::chrono::seconds(1);  // a gateway that was started again knows nothing yet

sigset_t supervised_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : {SIGCHLD, SIGTERM, SIGINT}) ::sigaddset(&signals, signal);
  return signals;
}

}  // namespace

Supervisor::Supervisor(const Config& config, std::vector<ChildSpec> specs) : config_(config) {
  for (ChildSpec& spec : specs) children_.push_back({std::move(spec), RestartPolicy(config.restart)});
}

void Supervisor::start(Child& child, TimePoint now) {
  child.start_again = kNever;
  child.is_ready = child.killed = false;
  child.policy.started();
  try {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) throw SetupError(fmt::format("pipe: {}", std::strerror(errno)));
    child.ready = UniqueFd(ends[0]);
    const UniqueFd ready(ends[1]);
    std::vector<std::string> arguments = child.spec.arguments;
    const auto first = std::exchange(child.spec.first_arguments, {});
    arguments.insert(arguments.end(), first.begin(), first.end());
    const RunsOn inherited(child.spec.cpus);
    child.pid =
        spawn_child(config_.executable, std::move(arguments), {ready.get(), config_.packed_fd}, child.spec.niceness);
    spdlog::info("started {} pid={}", child.spec.name, child.pid);
  } catch (const SetupError& error) {
    failed_to_start(child, error.what(), now);
  }
}

void Supervisor::look_ready(Child& child, TimePoint now) {
  char byte = 0;
  if (!child.ready) return;
  const ssize_t bytes = ::read(child.ready.get(), &byte, 1);
  if (bytes < 0) return;
  child.ready = UniqueFd();  // it said so, or ends without
  if (bytes == 0) return;
  child.is_ready = child.proven = true;
  child.policy.ready(now);
}

void Supervisor::ended(Child& child, int status, TimePoint now) {
  look_ready(child, now);
  child.ready = UniqueFd();
  const bool exited = WIFEXITED(status);
  const std::string how = child.killed && WIFSIGNALED(status) ? "was ended at once" : how_it_ended(status);
  const bool told_to = phase_ == Phase::kStopping || (phase_ == Phase::kDraining && child.spec.front);
  if (told_to) {
    if (exited && WEXITSTATUS(status) == 0) return;
    if (child.is_ready) note_cut_short();  // it had work, perhaps, and did not end as told
    spdlog::warn("{} {}", child.spec.name, how);
  } else if (exited && WEXITSTATUS(status) == kExitCannotStart) {
    failed_to_start(child, how, now);
  } else if (exited && WEXITSTATUS(status) == 0 && child.is_ready) {
    child.start_again = now + config_.restart.delay;
    spdlog::warn("{} has drained and left, which somebody told it; it starts again in {:.1f} s", child.spec.name,
                 seconds(config_.restart.delay));
  } else {
    start_later(child, how, now);
  }
}

void Supervisor::failed_to_start(Child& child, const std::string& how, TimePoint now) {
  child.ready = UniqueFd();
  if (child.proven) return start_later(child, how, now);
  spdlog::error("{} cannot start: {}", child.spec.name, how);
  exit_code_ = kExitCannotStart;
}

void Supervisor::start_later(Child& child, const std::string& how, TimePoint now) {
  const Duration delay = child.policy.ended(now);
  child.is_ready = false;
  child.last_end = how;
  child.start_again = now + delay;
  spdlog::error("{} {}; its requests end in an error, it starts again in {:.1f} s", child.spec.name, how,
                seconds(delay));
  if (!child.policy.loop_begins()) return;
  spdlog::critical(
      "crash loop: {} ended {} times within {:.0f} s and never stayed up, the last time it was: {}. Its own lines "
      "above say why; try lower --device-memory or --max-sequences, another --isa, or scripts/test on this machine",
      child.spec.name, child.policy.ends(), seconds(child.policy.ends_within(now)), how);
  tell_at_ = now;
  if (!child.spec.front) return;
  spdlog::critical("without {} nobody can be served: giving up", child.spec.name);
  exit_code_ = kExitCrashLoop;
}

// Whatever went wrong before matters more.
void Supervisor::note_cut_short() {
  if (exit_code_ == 0) exit_code_ = kExitCutShort;
}

void Supervisor::reap(TimePoint now) {
  for (Child& child : children_) {
    int status = 0;
    if (child.pid < 0 || ::waitpid(child.pid, &status, WNOHANG) != child.pid) continue;
    child.pid = -1;
    ended(child, status, now);
  }
}

bool Supervisor::any_alive(bool front_only) const {
  return std::ranges::any_of(children_,
                             [&](const Child& child) { return child.pid > 0 && (child.spec.front || !front_only); });
}

void Supervisor::signal(int number, bool front) const {
  for (const Child& child : children_)
    if (child.pid > 0 && child.spec.front == front) ::kill(child.pid, number);
}

void Supervisor::stop_rest(Duration grace, TimePoint now) {
  phase_ = Phase::kStopping;
  phase_until_ = now + grace;
}

void Supervisor::on_signals(uint32_t count, TimePoint now) {
  const uint32_t before = std::exchange(signals_, signals_ + count);
  if (before == 0 && signals_ > 0 && phase_ == Phase::kRunning) {
    phase_ = Phase::kDraining;
    phase_until_ = now + config_.drain_max;
    signal(SIGTERM, true);
    spdlog::info("stopping: requests have {:.0f} s to finish; a second signal ends them", seconds(config_.drain_max));
  }
  if (before <= 1 && signals_ > 1) {
    spdlog::warn("a second signal: ending what is left now");
    note_cut_short();
    signal(SIGTERM, true);  // its second, too: its clients are told
    for (Child& child : children_) child.killed = child.pid > 0 && !child.spec.front;
    signal(SIGKILL, false);
    stop_rest(config_.now_grace, now);
  }
}

void Supervisor::kill_left(const char* why) {
  for (Child& child : children_) {
    if (child.pid <= 0 || (phase_ == Phase::kDraining && !child.spec.front)) continue;
    spdlog::warn("{} pid={} {}: killing it", child.spec.name, child.pid, why);
    ::kill(child.pid, SIGKILL);
    ::waitpid(child.pid, nullptr, 0);
    child.pid = -1;
    note_cut_short();
  }
}

void Supervisor::advance(TimePoint now) {
  if (phase_ == Phase::kRunning && exit_code_ != 0) {
    signal(SIGTERM, true);
    signal(SIGTERM, false);
    stop_rest(config_.stop_grace, now);
  }
  if (phase_ == Phase::kDraining && now >= phase_until_) kill_left("did not drain in time");
  if (phase_ == Phase::kDraining && !any_alive(true)) {
    signal(SIGTERM, false);
    stop_rest(config_.stop_grace, now);
  }
  if (phase_ == Phase::kStopping && now >= phase_until_) kill_left("did not stop in time");
  if (phase_ == Phase::kStopping && !any_alive(false)) phase_ = Phase::kStopped;
}

void Supervisor::tell_troubles(TimePoint now) {
  if (now < tell_at_) return;
  std::string troubles;
  for (const Child& child : children_)
    if (child.policy.loops()) troubles += fmt::format("{} keeps crashing: it {}\n", child.spec.name, child.last_end);
  tell_trouble(config_.status_socket, troubles);
  tell_at_ = troubles.empty() ? kNever : now + kTellEvery;
}

TimePoint Supervisor::next_deadline() const {
  TimePoint earliest = std::min(phase_until_, tell_at_);
  if (phase_ == Phase::kStopping) return earliest;
  for (const Child& child : children_) {
    earliest = std::min(earliest, child.start_again);
    if (child.pid > 0) earliest = std::min(earliest, child.policy.next_deadline());
  }
  return earliest;
}

void Supervisor::block_signals() {
  const sigset_t signals = supervised_signals();
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
}

// For a signal, a child that says it is ready, or the next deadline.
void Supervisor::wait(int signals) const {
  int timeout_ms = -1;
  if (const TimePoint next = next_deadline(); next != kNever)
    timeout_ms = static_cast<int>(std::max(0.0, milliseconds(next - steady_now()))) + 1;
  std::vector<pollfd> entries{{signals, POLLIN, 0}};
  for (const Child& child : children_)
    if (child.ready) entries.push_back({child.ready.get(), POLLIN, 0});
  ::poll(entries.data(), entries.size(), timeout_ms);
}

int Supervisor::run() {
  block_signals();
  const sigset_t signals = supervised_signals();
  const UniqueFd fd(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
  if (!fd) throw SetupError(fmt::format("signalfd: {}", std::strerror(errno)));
  for (Child& child : children_)
    if (exit_code_ == 0) start(child, steady_now());

  for (;;) {
    advance(steady_now());
    if (phase_ == Phase::kStopped) return exit_code_;
    wait(fd.get());
    uint32_t stops = 0;
    signalfd_siginfo info{};
    while (::read(fd.get(), &info, sizeof info) == sizeof info) stops += info.ssi_signo == SIGCHLD ? 0 : 1;
    const TimePoint now = steady_now();
    on_signals(stops, now);
    reap(now);
    for (Child& child : children_) {
      look_ready(child, now);
      if (child.pid > 0 && child.policy.recovers(now)) {
        spdlog::info("{} stays up again", child.spec.name);
        tell_at_ = now;
      }
      const bool wanted = phase_ == Phase::kRunning || (phase_ == Phase::kDraining && !child.spec.front);
      if (wanted && exit_code_ == 0 && child.start_again <= now) start(child, now);
    }
    tell_troubles(now);
  }
}

}  // namespace spillway
