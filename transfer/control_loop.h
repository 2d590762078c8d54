#pragma once

#include <atomic>
#include <functional>

#include "common/clock.h"
#include "common/waker.h"
#include "transfer/control_channel.h"

namespace spillway {

// The loop thread of every process: sleeps in one poll (control sockets, mailbox eventfd, next deadline) and hands what
// happened to the role's node. The role supplies three functions, called on this thread only.
class ControlLoop {
 public:
  struct Role {
    std::function<void(const ControlEvent&, TimePoint now)> on_control;
    std::function<void(TimePoint now)> on_wake;  // mailboxes may have items, or a deadline passed
    std::function<TimePoint()> next_deadline;
  };
  ControlLoop(ControlChannel& channel, EventFdWaker& waker, Role role);
  // Runs until stop(); throws SetupError when all that this process was to work for refuse it.
  void run();
  void stop();  // any thread, also from a signal handler

 private:
  void sleep();

  ControlChannel& channel_;
  EventFdWaker& waker_;
  Role role_;
  std::atomic<bool> stopping_ = false;
};

}  // namespace spillway
