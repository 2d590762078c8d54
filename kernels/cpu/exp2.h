#pragma once

#include <bit>
#include <cstdint>

namespace spillway::cpu {

inline constexpr float kLog2E = 1.44269504f;  // log2(e): e^x = 2^(x * log2(e))

// 2^x to about 2 ulp in plain f32 arithmetic, the same bits on every machine: exactly 1 at 0, 0 below -126 and at -inf,
// +inf from 128 on, NaN for NaN. Coefficients: Cephes exp2f.
inline float exp2_scalar(float x) {
  if (x < -126.0f) return 0.0f;
  if (!(x < 128.0f)) return x + std::bit_cast<float>(0x7f800000u);
  const float shifted = x + 12582912.0f;  // 1.5 * 2^23: rounds to an integer, ties to even
  const float f = x - (shifted - 12582912.0f);
  const int32_t whole = std::bit_cast<int32_t>(shifted) - std::bit_cast<int32_t>(12582912.0f);
  float y = 1.535336188319500e-4f;
  y = y * f + 1.339887440266574e-3f;
  y = y * f + 9.618437357674640e-3f;
  y = y * f + 5.550332471162809e-2f;
  y = y * f + 2.402264791363012e-1f;
  y = y * f + 6.931472028550421e-1f;
  y = y * f + 1.0f;
  // In two factors: 2^128 is no float.
  const int32_t half = whole >> 1;
  y *= std::bit_cast<float>(static_cast<uint32_t>(half + 127) << 23);
  return y * std::bit_cast<float>(static_cast<uint32_t>(whole - half + 127) << 23);
}

}  // namespace spillway::cpu
