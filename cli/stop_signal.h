#pragma once

#include <signal.h>

#include <cstdint>

#include "common/waker.h"

namespace spillway {

// While it lives, SIGTERM and SIGINT are counted and wake the loop. One at a time per process, because a signal handler
// can only find something static.
class StopSignals {
 public:
  explicit StopSignals(EventFdWaker& waker);
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();
  uint32_t count() const;
};

// While it lives, SIGTERM and SIGINT are noted and end nothing. One at a time per process, not beside StopSignals.
class NotedStopSignal {
 public:
  NotedStopSignal();
  NotedStopSignal(const NotedStopSignal&) = delete;
  NotedStopSignal& operator=(const NotedStopSignal&) = delete;
  ~NotedStopSignal();  // what was done at these signals before is done again
  bool seen() const;   // since the last look; what comes after the last one is raised again at the end

 private:
  struct sigaction before_[2]{};
};

}  // namespace spillway
