#pragma once

#include <immintrin.h>

// Every function with 256-bit code carries this attribute, so no other code of its file can be compiled for that ISA.
#define SPILLWAY_AVX2 __attribute__((target("avx2,fma,f16c")))
#define SPILLWAY_AVX2_INLINE __attribute__((target("avx2,fma,f16c"), always_inline)) inline

namespace spillway::cpu {
namespace {

// Of 8 pairs of bf16 the even (low) and the odd (high) halves, exactly, as f32.
SPILLWAY_AVX2_INLINE __m256 even_halves(__m256i pairs) { return _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)); }
SPILLWAY_AVX2_INLINE __m256 odd_halves(__m256i pairs) {
  return _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

// wide[i] = narrow[i], bf16 to f32, exactly.
SPILLWAY_AVX2_INLINE void widen(const unsigned short* narrow, unsigned count, float* wide) {
  unsigned i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(narrow + i)));
    _mm256_storeu_ps(wide + i, _mm256_castsi256_ps(_mm256_slli_epi32(words, 16)));
  }
  for (; i < count; ++i) {
    const unsigned bits = static_cast<unsigned>(narrow[i]) << 16;
    __builtin_memcpy(wide + i, &bits, sizeof(bits));
  }
}

// f32 to bf16 in the upper halves of 8 words, with whatever below: to nearest even, NaN stays a quiet NaN.
SPILLWAY_AVX2_INLINE __m256i narrowed_words(__m256 value) {
  const __m256i bits = _mm256_castps_si256(value);
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
  return _mm256_blendv_epi8(rounded, quiet, _mm256_castps_si256(_mm256_cmp_ps(value, value, _CMP_UNORD_Q)));
}

// 16 values in order, as bf16.
SPILLWAY_AVX2_INLINE __m256i narrowed(__m256 low, __m256 high) {
  const __m256i words =
      _mm256_packus_epi32(_mm256_srli_epi32(narrowed_words(low), 16), _mm256_srli_epi32(narrowed_words(high), 16));
  return _mm256_permute4x64_epi64(words, 0xd8);  // packus works within halves of 128 bits
}

// 2^x to about 2 ulp: exactly 1 at 0; 0 below -126 (denormal results are flushed, as everywhere) and at -inf; +inf from
// 128 on; NaN for NaN.
SPILLWAY_AVX2_INLINE __m256 exp2_avx2(__m256 x) {
  const __m256 whole = _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m256 f = _mm256_sub_ps(x, whole);
  __m256 y = _mm256_set1_ps(1.535336188319500e-4f);  // minimax over [-0.5, 0.5], constant term 1 (Cephes exp2f)
  y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(1.339887440266574e-3f));
  y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(9.618437357674640e-3f));
  y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(5.550332471162809e-2f));
  y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(2.402264791363012e-1f));
  y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(6.931472028550421e-1f));
  y = _mm256_fmadd_ps(y, f, _mm256_set1_ps(1.0f));
  // Onto the exponent of y in [0.7, 1.42): between -126 and 128 no result leaves the normal numbers. A NaN's `whole`
  // becomes 0 there.
  const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(whole), 23);
  y = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y), exponent));
  y = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_LT_OQ), y);
  return _mm256_blendv_ps(y, _mm256_set1_ps(__builtin_inff()), _mm256_cmp_ps(x, _mm256_set1_ps(128.0f), _CMP_GE_OQ));
}

}  // namespace
}  // namespace spillway::cpu
