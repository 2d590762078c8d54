#pragma once

#include "kernels/cpu/avx2.h"
#include "kernels/cpu/isa_kernels.h"

// What the products of bf16 and of int8 activations share. Everything as kernels/cpu/avx2.h asks.
namespace spillway::cpu {
namespace {

// d and m of 8 columns.
struct Scales {
  __m256 d, m;
};

template <PanelFormat Format>
SPILLWAY_AVX2_INLINE Scales load_scales(const char* scales, int vector) {
  constexpr PanelLayout kLayout = layout_of(Format);
  const char* const d = scales + 8u * kLayout.scale_bytes * static_cast<unsigned>(vector);
  const char* const m = d + kPanelColumns * kLayout.scale_bytes;
  if constexpr (kLayout.scale_bytes == 4) {
    return {_mm256_loadu_ps(reinterpret_cast<const float*>(d)), _mm256_loadu_ps(reinterpret_cast<const float*>(m))};
  } else if constexpr (kLayout.scale_bytes == 2) {
    return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(d))),
            _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(m)))};
  } else {
    return {_mm256_setzero_ps(), _mm256_setzero_ps()};
  }
}

SPILLWAY_AVX2_INLINE __m256 swiglu(const float* gate, const float* up) {
  const __m256 value = _mm256_load_ps(gate);
  const __m256 negated = _mm256_mul_ps(value, _mm256_set1_ps(-1.44269504f));
  const __m256 divisor = _mm256_add_ps(_mm256_set1_ps(1.0f), exp2_avx2(negated));
  return _mm256_mul_ps(_mm256_div_ps(value, divisor), _mm256_load_ps(up));
}

// One row's epilogue.
SPILLWAY_AVX2 void store_row(const GemmPanel& args, unsigned row, const float* sums) {
  if (args.epilogue == PanelEpilogue::kSwiGlu) {
    alignas(32) unsigned short features[kPanelColumns / 2];
    for (unsigned group = 0; group < 2; ++group) {
      const float* const gate = sums + 32 * group;  // 16 columns, then 16 of up
      const __m256i values = narrowed(swiglu(gate, gate + 16), swiglu(gate + 8, gate + 24));
      _mm256_store_si256(reinterpret_cast<__m256i*>(features + 16 * group), values);
    }
    __builtin_memcpy(static_cast<unsigned short*>(args.out) + row * args.out_stride, features, 2 * args.columns);
    return;
  }
  float* const out = static_cast<float*>(args.out) + row * args.out_stride;
  const bool adds = args.epilogue == PanelEpilogue::kAdd;
  unsigned column = 0;
  for (; column + 8 <= args.columns; column += 8) {
    const __m256 value = _mm256_load_ps(sums + column);
    _mm256_storeu_ps(out + column, adds ? _mm256_add_ps(_mm256_loadu_ps(out + column), value) : value);
  }
  for (; column < args.columns; ++column) out[column] = adds ? out[column] + sums[column] : sums[column];
}

}  // namespace
}  // namespace spillway::cpu
