#include "transfer/control_loop.h"

#include <poll.h>

#include <algorithm>
#include <ctime>
#include <utility>
#include <vector>

#include "common/check.h"

namespace spillway {
namespace {

constexpr size_t kEventsPerTurn = 64;  // then mailboxes and deadlines have their turn

}  // namespace

ControlLoop::ControlLoop(ControlChannel& channel, EventFdWaker& waker, Role role)
    : channel_(channel), waker_(waker), role_(std::move(role)) {}

void ControlLoop::run() {
  std::vector<ControlEvent> events;
  for (;;) {
    const TimePoint now = steady_now();
    channel_.receive(now, events, kEventsPerTurn);
    if (const std::string reason = channel_.refused_reason(); !reason.empty())
      throw SetupError("a peer refused to work with this process: " + reason);
    for (const ControlEvent& event : events) role_.on_control(event, now);
    events.clear();
    // Every turn: a mailbox may have filled up since, whatever ended the sleep.
    waker_.drain();
    // After the drain, which may have taken the wake-up of a stop(): it stored its flag before that.
    if (stopping_.load(std::memory_order_acquire)) return;
    role_.on_wake(now);
    sleep();
  }
}

// Not at all while the channel or the role has work left: their deadline is then in the past.
void ControlLoop::sleep() {
  const TimePoint deadline = std::min(channel_.next_deadline(), role_.next_deadline());
  std::vector<pollfd> sources{{waker_.fd(), POLLIN, 0}};
  for (const int fd : channel_.fds()) sources.push_back({fd, POLLIN, 0});
  const TimePoint now = steady_now();
  const Duration left = deadline <= now ? Duration::zero() : deadline - now;
  const auto whole = std::chrono::duration_cast<std::chrono::seconds>(left);
  const timespec timeout{static_cast<time_t>(whole.count()), static_cast<long>((left - whole).count())};
  ::ppoll(sources.data(), sources.size(), deadline == kNever ? nullptr : &timeout, nullptr);
}

void ControlLoop::stop() {
  stopping_.store(true, std::memory_order_release);
  waker_.wake();
}

}  // namespace spillway
