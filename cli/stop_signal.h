#pragma once

#include <signal.h>

#include <cstdint>

#include "common/waker.h"

namespace spillway {

// In the calling thread.
void block_stop_signals();

// Counts SIGTERM and SIGINT; while it lives they also wake the loop. Those between one and the next are counted for the
// next. One at a time per process, because a signal handler can only find something static.
class StopSignals {
 public:
  explicit StopSignals(EventFdWaker& waker);
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  ~StopSignals();
  uint32_t count() const;  // since the first one was made
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
