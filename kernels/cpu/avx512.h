#pragma once

#include <immintrin.h>

// Every function with 512-bit code carries this attribute, so no other code of its file can be compiled for that ISA.
#define SPILLWAY_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")))
#define SPILLWAY_AVX512_INLINE \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16"), always_inline)) inline
// With vpdpbusd as well: of the int8 products alone.
#define SPILLWAY_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni")))
#define SPILLWAY_VNNI_INLINE \
  __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx512vnni"), always_inline)) inline

namespace spillway::cpu {
namespace {

// 2^x to about 2 ulp: exactly 1 at 0; 0 below -126 (denormal results are flushed, as everywhere) and at -inf; NaN for
// NaN.
SPILLWAY_AVX512_INLINE __m512 exp2_avx512(__m512 x) {
  const __mmask16 normal = _mm512_cmp_ps_mask(x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  __m512 y = _mm512_set1_ps(1.535336188319500e-4f);  // minimax over [-0.5, 0.5], constant term 1 (Cephes exp2f)
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.339887440266574e-3f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(9.618437357674640e-3f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(5.550332471162809e-2f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(2.402264791363012e-1f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(6.931472028550421e-1f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.0f));
  return _mm512_maskz_scalef_ps(normal, y, whole);
}

// Two bf16 values as one lane, repeated. `pair` may be unaligned.
SPILLWAY_AVX512_INLINE __m512bh broadcast_pair(const unsigned short* pair) {
  return (__m512bh)_mm512_broadcastd_epi32(_mm_loadu_si32(pair));
}

}  // namespace
}  // namespace spillway::cpu
