#pragma once

#include "common/unique_fd.h"

namespace spillway {

// Ends another thread's sleep. wake() may be called by any thread, never blocks, and is remembered until seen.
class Waker {
 public:
  virtual void wake() = 0;

 protected:
  ~Waker() = default;
};

// A Waker that a poll() can sleep on: readable from wake() until drain().
class EventFdWaker final : public Waker {
 public:
  EventFdWaker();  // throws SetupError when the descriptor table is full
  void wake() override;
  void drain();
  int fd() const { return fd_.get(); }
  // Sleeps until wake() or `timeout_ms` (negative: no limit).
  void wait(int timeout_ms);

 private:
  UniqueFd fd_;
};

}  // namespace spillway
