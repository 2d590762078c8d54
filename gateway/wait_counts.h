#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/clock.h"

namespace spillway {

// Upper bounds of the histograms of seconds, the same in all, so that quantiles of two can be compared; the last two
// are for what waits in the queue, whose limit is five minutes.
inline constexpr std::array<double, 17> kSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                                                           1,     2.5,    5,     10,   25,    60,   120, 300};

// Waits by length; a value, for the loop thread to count in and to publish.
struct WaitCounts {
  std::array<uint64_t, kSecondsBuckets.size() + 1> counts{};  // the last: longer than all bounds
  double seconds_sum = 0;
  void add(Duration wait) {
    size_t bucket = 0;
    while (bucket < kSecondsBuckets.size() && seconds(wait) > kSecondsBuckets[bucket]) ++bucket;
    ++counts[bucket];
    seconds_sum += seconds(wait);
  }
};

}  // namespace spillway
