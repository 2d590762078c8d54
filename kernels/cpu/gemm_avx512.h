#pragma once

#include "kernels/cpu/avx512.h"
#include "kernels/cpu/isa_kernels.h"

// What the products of this level share. Everything as kernels/cpu/avx512.h asks.
namespace spillway::cpu {
namespace {

constexpr int kVectors = 4;   // zmm of one panel row: 64 columns
constexpr int kTileRows = 6;  // 6 x 4 accumulators, 4 panel vectors and a broadcast fill the 32 registers
constexpr uint32_t kAhead = 8192;  // bytes that the panel is fetched ahead of use, into L2: the way from memory is long

SPILLWAY_AVX512_INLINE __mmask16 lane_mask(uint32_t columns, int vector) {
  const uint32_t first = static_cast<uint32_t>(vector) * 16;
  return columns >= first + 16 ? __mmask16(0xffff)
         : columns <= first    ? __mmask16(0)
                               : __mmask16((1u << (columns - first)) - 1);
}

SPILLWAY_AVX512_INLINE __m512 swiglu(__m512 gate, __m512 up) {
  const __m512 negated = _mm512_mul_ps(gate, _mm512_set1_ps(-1.44269504f));
  const __m512 divisor = _mm512_add_ps(_mm512_set1_ps(1.0f), exp2_avx512(negated));
  return _mm512_mul_ps(_mm512_div_ps(gate, divisor), up);
}

// The epilogue of Rows rows and Vectors vectors of columns, an even number, from `vector` on.
template <int Rows, int Vectors>
SPILLWAY_AVX512_INLINE void store_tile(const GemmPanel& args, uint32_t row, int vector,
                                       const __m512 (&sums)[Rows][Vectors]) {
  for (int r = 0; r < Rows; ++r) {
    const size_t place = (row + static_cast<uint32_t>(r)) * args.out_stride;
    if (args.epilogue == PanelEpilogue::kSwiGlu) {
      for (int v = 0; v < Vectors; v += 2) {
        const int half = (vector + v) / 2;
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(args.out) + place + 16 * half, lane_mask(args.columns, half),
                                 (__m256i)_mm512_cvtneps_pbh(swiglu(sums[r][v], sums[r][v + 1])));
      }
      continue;
    }
    float* const out = static_cast<float*>(args.out) + place + 16 * vector;
    for (int v = 0; v < Vectors; ++v) {
      const __mmask16 mask = lane_mask(args.columns, vector + v);
      __m512 value = sums[r][v];
      if (args.epilogue == PanelEpilogue::kAdd) value = _mm512_add_ps(_mm512_maskz_loadu_ps(mask, out + 16 * v), value);
      _mm512_mask_storeu_ps(out + 16 * v, mask, value);
    }
  }
}

// Fetches as much as a block has, kAhead of it.
template <PanelFormat Format>
SPILLWAY_AVX512_INLINE void fetch_ahead(const char* block) {
  for (size_t line = 0; line < layout_of(Format).block_bytes(); line += 64)
    _mm_prefetch(block + kAhead + line, _MM_HINT_T1);
}

// d and m of 16 columns.
struct Scales {
  __m512 d, m;
};

// Of columns 16 * vector and following; `scales`: after a block's words.
template <PanelFormat Format>
SPILLWAY_AVX512_INLINE Scales load_scales(const char* scales, uint32_t vector) {
  constexpr PanelLayout kLayout = layout_of(Format);
  const char* const d = scales + 16 * kLayout.scale_bytes * vector;
  const char* const m = d + kPanelColumns * kLayout.scale_bytes;
  if constexpr (kLayout.scale_bytes == 4) {
    return {_mm512_loadu_ps(d), _mm512_loadu_ps(m)};
  } else {
    return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(d))),
            _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(m)))};
  }
}

}  // namespace
}  // namespace spillway::cpu
