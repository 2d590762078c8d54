#include "cli/stop_signal.h"

#include <atomic>
#include <iterator>

#include "common/check.h"

namespace spillway {
namespace {

std::atomic<ControlLoop*> loop_to_stop = nullptr;

constexpr int kStopSignals[] = {SIGTERM, SIGINT};
std::atomic<bool> stop_seen = false;

void note_signal(int) { stop_seen = true; }

void on_signal(int) {
  if (ControlLoop* const loop = loop_to_stop.load()) loop->stop();
}

}  // namespace

StopOnSignal::StopOnSignal(ControlLoop& loop) {
  ControlLoop* expected = nullptr;
  CHECK(loop_to_stop.compare_exchange_strong(expected, &loop));
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int signal : kStopSignals) CHECK(::sigaction(signal, &action, nullptr) == 0);
}

StopOnSignal::~StopOnSignal() { loop_to_stop = nullptr; }

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
