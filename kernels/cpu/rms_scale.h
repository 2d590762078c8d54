#pragma once

#include <array>
#include <cmath>
#include <cstdint>

namespace spillway::cpu {

// 1 / sqrt(mean(x^2) + epsilon) of `count` values. The sum is one fixed order that compilers turn into vector code
// without leave to reorder: sixteen partial sums (element i goes to sum i mod 16, in ascending order), folded in
// halves.
inline float rms_scale(const float* x, uint32_t count, float epsilon) {
  std::array<float, 16> sums{};
  const uint32_t whole = count / 16 * 16;
  for (uint32_t i = 0; i < whole; i += 16) {
    for (uint32_t lane = 0; lane < 16; ++lane) sums[lane] += x[i + lane] * x[i + lane];
  }
  for (uint32_t i = whole; i < count; ++i) sums[i - whole] += x[i] * x[i];
  for (uint32_t width = 8; width > 0; width /= 2) {
    for (uint32_t lane = 0; lane < width; ++lane) sums[lane] += sums[lane + width];
  }
  return 1.0f / std::sqrt(sums[0] / static_cast<float>(count) + epsilon);
}

}  // namespace spillway::cpu
