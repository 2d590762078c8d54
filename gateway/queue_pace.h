#pragma once

#include <cstdint>
#include <deque>

#include "common/clock.h"

namespace spillway {

// What a client that found the queue full is told to wait: until the queue of now has left, at the pace at which
// requests finished in the last ten seconds. A value.
class QueuePace {
 public:
  // `finished`: requests since the start. More often than once a second changes only the queue.
  void observe(TimePoint now, uint64_t finished, uint32_t queued);
  unsigned drains_in_s() const;  // 1 to 60; 60 also where requests wait and none finished

 private:
  struct Sample {
    TimePoint at;
    uint64_t finished;
  };
  std::deque<Sample> samples_;  // a second apart, eleven at most
  Sample last_{};
  uint32_t queued_ = 0;
};

}  // namespace spillway
