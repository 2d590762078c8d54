#pragma once

#include <chrono>

namespace spillway {

using Duration = std::chrono::nanoseconds;
using TimePoint = std::chrono::time_point<std::chrono::steady_clock, Duration>;  // local: never travels
inline constexpr TimePoint kNever = TimePoint::max();

// The process clock. Node cores never read it: they are handed `now`.
inline TimePoint steady_now() { return std::chrono::time_point_cast<Duration>(std::chrono::steady_clock::now()); }

inline double seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }
inline double milliseconds(Duration duration) { return seconds(duration) * 1e3; }

}  // namespace spillway
