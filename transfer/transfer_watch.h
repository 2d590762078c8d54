#pragma once

#include <algorithm>
#include <cstdint>

#include "common/clock.h"

namespace spillway {

// Whether the transfer thread still answers, as StepWatch for the compute thread. While it has work and nothing is
// heard of it, it is asked now and then: a peer may just have nothing to send, and a thread that hangs says nothing at
// all. One question at a time. Loop thread; no clock of its own.
class TransferWatch {
 public:
  explicit TransferWatch(Duration stall_after) : stall_after_(stall_after) {}
  void heard(TimePoint now) {  // any event of the thread
    if (since_ != kNever) since_ = now;
    stalled_ = {};
  }
  void answered(TimePoint now) {  // TransferAlive
    asked_ = false;
    heard(now);
  }
  // Once a turn. True: a TransferProbe is due.
  bool look(TimePoint now, bool has_work) {
    if (!has_work && !asked_) since_ = kNever;
    if (has_work && since_ == kNever) since_ = now;
    if (since_ == kNever) return false;
    if (asked_ && now - since_ >= stall_after_) stalled_ = std::chrono::floor<std::chrono::seconds>(now - since_);
    if (asked_ || now - since_ < kQuietMax) return false;
    return asked_ = true;
  }
  // As of the last look(): whole seconds without a sign of life; 0 below `stall_after`.
  uint32_t stalled_ms() const { return static_cast<uint32_t>(std::chrono::milliseconds(stalled_).count()); }
  TimePoint next_deadline() const {  // of the next look(); kNever: it has nothing to do
    if (since_ == kNever) return kNever;
    return since_ + (asked_ ? std::max<Duration>(stall_after_, stalled_ + std::chrono::seconds(1)) : kQuietMax);
  }

 private:
  static constexpr Duration kQuietMax = std::chrono::seconds(1);
  const Duration stall_after_;
  TimePoint since_ = kNever;
  bool asked_ = false;
  std::chrono::seconds stalled_{};
};

}  // namespace spillway
