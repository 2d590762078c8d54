#include "cli/stop_signal.h"

#include <atomic>
#include <iterator>

#include "common/check.h"

namespace spillway {
namespace {

std::atomic<EventFdWaker*> waker_to_wake = nullptr;
std::atomic<uint32_t> signals_seen = 0;

constexpr int kStopSignals[] = {SIGTERM, SIGINT};
std::atomic<bool> stop_seen = false;

void note_signal(int) { stop_seen = true; }

void on_signal(int) {
  ++signals_seen;
  if (EventFdWaker* const waker = waker_to_wake.load()) waker->wake();
}

}  // namespace

void block_stop_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  for (const int signal : kStopSignals) ::sigaddset(&signals, signal);
  CHECK(::pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
}

StopSignals::StopSignals(EventFdWaker& waker) {
  EventFdWaker* expected = nullptr;
  CHECK(waker_to_wake.compare_exchange_strong(expected, &waker));
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int signal : kStopSignals) CHECK(::sigaction(signal, &action, nullptr) == 0);
}

StopSignals::~StopSignals() { waker_to_wake = nullptr; }

uint32_t StopSignals::count() const { return signals_seen; }

NotedStopSignal::NotedStopSignal() {
  stop_seen = false;
  struct sigaction action {};
  action.sa_handler = note_signal;
  for (size_t i = 0; i < std::size(kStopSignals); ++i) CHECK(::sigaction(kStopSignals[i], &action, &before_[i]) == 0);
}

NotedStopSignal::~NotedStopSignal() {
  for (size_t i = 0; i < std::size(kStopSignals); ++i) ::sigaction(kStopSignals[i], &before_[i], nullptr);
  if (stop_seen) ::raise(SIGINT);  // came after the last seen(): it must not be lost
}

bool NotedStopSignal::seen() const { return stop_seen.exchange(false); }

}  // namespace spillway
