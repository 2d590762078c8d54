#pragma once

#include <cstdint>

#include "common/clock.h"

namespace spillway {

// When one child that ended is started again: each delay is twice the last, up to a cap, until a process stayed at work
// for `settled_after`. So many ends in a row without that are a crash loop. Pure; no clock of its own.
class RestartPolicy {
 public:
  struct Config {
    Duration delay = std::chrono::seconds(1);
    Duration delay_max = std::chrono::seconds(30);
    Duration settled_after = std::chrono::seconds(30);
    uint32_t loop_ends = 5;
  };
  explicit RestartPolicy(const Config& config) : config_(config) {}

  void started(TimePoint now) { started_ = now; }
  // `was_ready`: that process has been at work. Gives the delay before the next start.
  Duration ended(bool was_ready, TimePoint now);
  // True once: the present process settled after a crash loop. `ready`: it is at work.
  bool recovers(bool ready, TimePoint now);
  bool loops() const { return ends_ >= config_.loop_ends; }
  bool loop_begins() const { return ends_ == config_.loop_ends; }  // right after ended()
  uint32_t ends() const { return ends_; }                          // in a row
  Duration ends_within(TimePoint now) const { return now - first_end_; }
  TimePoint next_deadline() const;  // of the next recovers(); kNever: no crash loop

 private:
  bool settled(bool ready, TimePoint now) const { return ready && now - started_ >= config_.settled_after; }

  const Config config_;
  TimePoint started_{}, first_end_{};
  uint32_t ends_ = 0;
};

}  // namespace spillway
