#pragma once

#include <cstdint>

#include "common/clock.h"

namespace spillway {

// Whether the step in flight still moves. The loop lives on while the compute thread hangs, so nobody else can tell a
// node that works from one that only says so. Loop thread; no clock of its own.
class StepWatch {
 public:
  explicit StepWatch(Duration stall_after) : stall_after_(stall_after) {}
  void moved(TimePoint now) {  // a step began, or a layer of it is done
    since_ = now;
    next_ = now + stall_after_;
    stalled_ = {};
  }
  void ended() {
    since_ = next_ = kNever;
    stalled_ = {};
  }
  void look(TimePoint now) {
    if (now < next_) return;
    stalled_ = std::chrono::floor<std::chrono::seconds>(now - since_);
    next_ = since_ + stalled_ + std::chrono::seconds(1);
  }
  // As of the last look(): whole seconds without a sign of life; 0 below `stall_after`.
  uint32_t stalled_ms() const { return static_cast<uint32_t>(std::chrono::milliseconds(stalled_).count()); }
  TimePoint next_deadline() const { return next_; }  // of the next look(); kNever: no step in flight

 private:
  const Duration stall_after_;
  TimePoint since_ = kNever, next_ = kNever;
  std::chrono::seconds stalled_{};
};

}  // namespace spillway
