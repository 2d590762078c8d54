#include "cli/stop_signal.h"

#include <signal.h>

#include <atomic>

#include "common/check.h"

namespace spillway {
namespace {

std::atomic<ControlLoop*> loop_to_stop = nullptr;

void on_signal(int) {
  if (ControlLoop* const loop = loop_to_stop.load()) loop->stop();
}

}  // namespace

StopOnSignal::StopOnSignal(ControlLoop& loop) {
  ControlLoop* expected = nullptr;
  CHECK(loop_to_stop.compare_exchange_strong(expected, &loop));
  struct sigaction action {};
  action.sa_handler = on_signal;
  for (const int signal : {SIGTERM, SIGINT}) CHECK(::sigaction(signal, &action, nullptr) == 0);
}

StopOnSignal::~StopOnSignal() { loop_to_stop = nullptr; }

}  // namespace spillway
