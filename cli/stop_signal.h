#pragma once

#include <signal.h>

#include "transfer/control_loop.h"

namespace spillway {

// While it lives, SIGTERM and SIGINT stop `loop`. One at a time per process, because a signal handler can only find
// something static.
class StopOnSignal {
 public:
  explicit StopOnSignal(ControlLoop& loop);
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  ~StopOnSignal();
};

// While it lives, SIGTERM and SIGINT are noted and end nothing. One at a time per process, not beside a StopOnSignal.
class NotedStopSignal {
 public:
  NotedStopSignal();
  NotedStopSignal(const NotedStopSignal&) = delete;
  NotedStopSignal& operator=(const NotedStopSignal&) = delete;
  ~NotedStopSignal();  // what was done at these signals before is done again
  bool seen() const;  // since the last look; what comes after the last one is raised again at the end

 private:
  struct sigaction before_[2]{};
};

}  // namespace spillway
