#pragma once

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

}  // namespace spillway
