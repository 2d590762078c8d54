#pragma once

#include <atomic>

#include "cli/stop_signal.h"
#include "common/thread.h"
#include "common/waker.h"

namespace spillway {

// While it lives, SIGTERM and SIGINT end a process that still loads its model: nobody waits for it yet, so it goes at
// once, with exit code 0, whatever the loading thread is in the middle of. Files that are half-written then are
// removed; REQUIRES that nothing else with a name in the file system (a socket, a folder) was made meanwhile. A thread
// of its own that sleeps. Signals that come after it are counted for the next StopSignals.
class LoadingWatch {
 public:
  LoadingWatch();
  LoadingWatch(const LoadingWatch&) = delete;
  LoadingWatch& operator=(const LoadingWatch&) = delete;
  ~LoadingWatch();

 private:
  void watch();

  EventFdWaker waker_;
  const StopSignals signals_{waker_};
  std::atomic<bool> loaded_ = false;
  Thread thread_;
};

}  // namespace spillway
