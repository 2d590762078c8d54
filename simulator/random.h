#pragma once

#include <cstdint>

#include "common/check.h"
#include "common/clock.h"

namespace spillway {

// SplitMix64 (Steele, Lea, Flood 2014), finaliser and generator: the same numbers on every machine, which the standard
// distributions do not promise.
inline constexpr uint64_t mix64(uint64_t value) {
  value += 0x9E3779B97F4A7C15ull;
  value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9ull;
  value = (value ^ (value >> 27)) * 0x94D049BB133111EBull;
  return value ^ (value >> 31);
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(mix64(seed)) {}
  uint64_t next() { return mix64(state_ += 0x9E3779B97F4A7C15ull); }
  uint64_t below(uint64_t bound) {  // REQUIRES: bound > 0
    CHECK(bound > 0);
    return next() % bound;
  }
  uint32_t between(uint32_t low, uint32_t high) { return low + static_cast<uint32_t>(below(uint64_t{high} - low + 1)); }
  Duration between(Duration low, Duration high) {
    return low + Duration(static_cast<int64_t>(below(static_cast<uint64_t>((high - low).count()) + 1)));
  }
  bool one_in(uint64_t count) { return below(count) == 0; }

 private:
  uint64_t state_;
};

}  // namespace spillway
