#pragma once

#include <cstdint>

#include "cli/stop_signal.h"
#include "common/clock.h"
#include "common/waker.h"

namespace spillway {

// How a gateway or a node ends: the first SIGTERM or SIGINT asks it to drain; when `limit` has passed, or at a second
// signal, it ends with what is left. Loop thread; logs what happens, and while it waits what for.
class Drain {
 public:
  Drain(EventFdWaker& waker, Duration limit);
  bool begins(TimePoint now);  // true once: the first signal has come
  // Whether it is time to go, after begins(). `requests`: those that it still waits for.
  bool ends(bool drained, uint32_t requests, TimePoint now);
  // It has drained, and clients may still read what it said: whether a second signal came meanwhile, which cuts it
  // short.
  bool told_again();
  bool cut_short() const { return cut_short_; }  // ends() said so before all was done
  Duration time_left(TimePoint now) const { return now < until_ ? until_ - now : Duration{}; }
  TimePoint next_deadline() const;
  int exit_code() const;

 private:
  const StopSignals signals_;
  const Duration limit_;
  TimePoint until_ = kNever, report_at_ = kNever;
  bool draining_ = false, cut_short_ = false;
};

// Without waiting for other threads: a step may never end. Peers learn of it by the connection.
[[noreturn]] void leave_now(int exit_code);

}  // namespace spillway
