#pragma once

#include <cstdint>
#include <optional>

#include "common/clock.h"

namespace spillway {

// When one child that ended is started again: each delay is twice the last, up to a cap, until a process stayed at work
// for `settled_after` (loading is no work, however long it takes). So many ends in a row without that are a crash loop.
// Pure; no clock of its own.
class RestartPolicy {
 public:
  struct Config {
    Duration delay = std::chrono::seconds(1);
    Duration delay_max = std::chrono::seconds(30);
    Duration settled_after = std::chrono::seconds(30);
    uint32_t loop_ends = 5;
  };
  explicit RestartPolicy(const Config& config) : config_(config) {}

  void started() { ready_since_.reset(); }
  void ready(TimePoint now) { ready_since_ = now; }  // the started process is at work
  Duration ended(TimePoint now);                     // gives the delay before the next start
  bool recovers(TimePoint now);                      // true once: the present process settled after a crash loop
  bool loops() const { return ends_ >= config_.loop_ends; }
  bool loop_begins() const { return ends_ == config_.loop_ends; }  // right after ended()
  uint32_t ends() const { return ends_; }                          // in a row
  Duration ends_within(TimePoint now) const { return now - first_end_; }
  TimePoint next_deadline() const;  // of the next recovers(); kNever: no crash loop

 private:
  bool settled(TimePoint now) const { return ready_since_ && now - *ready_since_ >= config_.settled_after; }

  const Config config_;
  std::optional<TimePoint> ready_since_;
  TimePoint first_end_{};
  uint32_t ends_ = 0;
};

}  // namespace spillway
