#include "kernels/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace spillway {
namespace {

constexpr uint32_t kDim = 32, kPositions = 5000;

// The exact entry: `half` 0 a cosine, 1 a sine.
double entry(const RopeSettings& settings, uint32_t position, uint32_t pair, uint32_t half) {
  double angle = position * std::pow(settings.theta_base, -2.0 * pair / kDim) * settings.position_scale;
  if (!settings.divisors.empty()) angle /= settings.divisors[pair];
  return settings.magnitude * (half == 0 ? std::cos(angle) : std::sin(angle));
}

void expect_exact(const RopeSettings& settings) {
  std::vector<float> table(size_t{kPositions} * kDim);
  fill_rope_table(settings, kDim, table);
  for (uint32_t position = 0; position < kPositions; ++position)
    for (uint32_t dim = 0; dim < kDim; ++dim) {
      const double expected = entry(settings, position, dim / 2, dim % 2);
      // Half a step of f32, and room for the order of products in f64 (2^-52 of an angle up to kPositions).
      ASSERT_NEAR(table[size_t{position} * kDim + dim], expected, std::abs(expected) * 0x1p-24 + kPositions * 0x1p-50)
          << position << " " << dim;
    }
}

TEST(RopeTable, IsRoundedOnceFromF64InEveryScaling) {
  std::vector<float> divisors(kDim / 2, 8.0f);
  divisors[0] = 1.0f;
  divisors[1] = 2.7f;
  expect_exact({});
  expect_exact({.theta_base = 1e6, .position_scale = 0.25});
  expect_exact({.theta_base = 5e5, .divisors = divisors});
  expect_exact({.position_scale = 0.5, .magnitude = 1.3, .divisors = divisors});
}

TEST(RopeTable, ScalingOfOneChangesNoBit) {
  std::vector<float> plain(size_t{kPositions} * kDim), scaled = plain;
  fill_rope_table({.theta_base = 1e5}, kDim, plain);
  fill_rope_table({.theta_base = 1e5, .divisors = std::vector<float>(kDim / 2, 1.0f)}, kDim, scaled);
  EXPECT_EQ(plain, scaled);
}

}  // namespace
}  // namespace spillway
