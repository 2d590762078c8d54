// The AVX-512 products and attention compiled for any x86-64 machine, with the intrinsics of SIMDe and, below, those
// that it has not: what they compute is then tested everywhere, how fast they are nowhere.
#define SIMDE_ENABLE_NATIVE_ALIASES
#include "tests/kernels/avx512_emulated.h"

#include <immintrin.h>
#include <simde/x86/avx512.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "kernels/bf16.h"
#include "kernels/cpu/stored_blocks.h"

namespace spillway::cpu {
namespace {

constexpr int kWords = 16;

__m512 emulated_fmadd_ps(__m512 a, __m512 b, __m512 c) {  // SIMDe rounds twice where the machine has no FMA
  float x[kWords], y[kWords], z[kWords];
  std::memcpy(x, &a, sizeof x);
  std::memcpy(y, &b, sizeof y);
  std::memcpy(z, &c, sizeof z);
  for (int i = 0; i < kWords; ++i) x[i] = __builtin_fmaf(x[i], y[i], z[i]);
  return simde_mm512_loadu_ps(x);
}

__m512 emulated_cvtph_ps(simde__m256i halves) {
  uint16_t bits[kWords];
  float values[kWords];
  std::memcpy(bits, &halves, sizeof bits);
  for (int i = 0; i < kWords; ++i) values[i] = f32_from_f16(bits[i]);
  return simde_mm512_loadu_ps(values);
}

__m512 emulated_cvtepi32_ps(__m512i integers) {
  int32_t from[kWords];
  float values[kWords];
  std::memcpy(from, &integers, sizeof from);
  for (int i = 0; i < kWords; ++i) values[i] = static_cast<float>(from[i]);
  return simde_mm512_loadu_ps(values);
}

__m512i emulated_cvtepu16_epi32(simde__m256i halves) {
  uint16_t from[kWords];
  uint32_t words[kWords];
  std::memcpy(from, &halves, sizeof from);
  for (int i = 0; i < kWords; ++i) words[i] = from[i];
  return simde_mm512_loadu_si512(words);
}

__m512i emulated_cvtps_epi32(__m512 values) {
  float from[kWords];
  int32_t integers[kWords];
  std::memcpy(from, &values, sizeof from);
  for (int i = 0; i < kWords; ++i) integers[i] = static_cast<int32_t>(__builtin_rintf(from[i]));
  return simde_mm512_loadu_si512(integers);
}

simde__m128i emulated_cvtepi32_epi8(__m512i integers) {
  int32_t from[kWords];
  int8_t bytes[kWords];
  std::memcpy(from, &integers, sizeof from);
  for (int i = 0; i < kWords; ++i) bytes[i] = static_cast<int8_t>(from[i]);
  return simde_mm_loadu_si128(bytes);
}

simde__m256i emulated_cvtneps_pbh(__m512 values) {
  float from[kWords];
  uint16_t bits[kWords];
  std::memcpy(from, &values, sizeof from);
  for (int i = 0; i < kWords; ++i) bits[i] = bf16_from_f32(from[i]);
  simde__m256i narrow;
  std::memcpy(&narrow, bits, sizeof bits);
  return narrow;
}

template <class T, class Vector>
void emulated_mask_storeu(void* to, uint32_t mask, const Vector& vector) {
  T values[kWords];
  std::memcpy(values, &vector, sizeof values);
  for (int i = 0; i < kWords; ++i)
    if (mask >> i & 1) std::memcpy(static_cast<T*>(to) + i, &values[i], sizeof(T));
}

__m512 emulated_maskz_loadu_ps(uint32_t mask, const void* from) {
  float values[kWords] = {};
  for (int i = 0; i < kWords; ++i)
    if (mask >> i & 1) std::memcpy(&values[i], static_cast<const float*>(from) + i, sizeof(float));
  return simde_mm512_loadu_ps(values);
}

__m512i emulated_maskz_loadu_epi32(uint32_t mask, const void* from) {
  uint32_t words[kWords] = {};
  for (int i = 0; i < kWords; ++i)
    if (mask >> i & 1) std::memcpy(&words[i], static_cast<const uint32_t*>(from) + i, sizeof(uint32_t));
  return simde_mm512_loadu_si512(words);
}

simde__m512i emulated_cvtne2ps_pbh(__m512 high, __m512 low) {
  const simde__m256i halves[2] = {emulated_cvtneps_pbh(low), emulated_cvtneps_pbh(high)};
  return simde_mm512_loadu_si512(halves);
}

__m512i emulated_cvtepi8_epi32(simde__m128i bytes) {
  int8_t from[kWords];
  int32_t words[kWords];
  std::memcpy(from, &bytes, sizeof from);
  for (int i = 0; i < kWords; ++i) words[i] = from[i];
  return simde_mm512_loadu_si512(words);
}

float emulated_cvtss_f32(__m512 values) {
  float first;
  std::memcpy(&first, &values, sizeof first);
  return first;
}

float emulated_reduce_max_ps(__m512 values) {
  float from[kWords];
  std::memcpy(from, &values, sizeof from);
  for (int i = 1; i < kWords; ++i) from[0] = from[i] > from[0] ? from[i] : from[0];
  return from[0];
}

}  // namespace
}  // namespace spillway::cpu

#undef _mm512_fmadd_ps
#define _mm512_fmadd_ps emulated_fmadd_ps
#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtepu16_epi32 emulated_cvtepu16_epi32
#define _mm512_cvtps_epi32 emulated_cvtps_epi32
#define _mm512_cvtepi32_epi8 emulated_cvtepi32_epi8
#define _mm512_cvtneps_pbh emulated_cvtneps_pbh
#define _mm512_mask_storeu_ps emulated_mask_storeu<float>
#define _mm256_mask_storeu_epi16 emulated_mask_storeu<uint16_t>
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define _mm512_maskz_loadu_epi32 emulated_maskz_loadu_epi32
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps_pbh
#define _mm512_cvtepi8_epi32 emulated_cvtepi8_epi32
#define _mm512_reduce_max_ps emulated_reduce_max_ps
#define _mm512_cvtss_f32 emulated_cvtss_f32
#define target(isa) unused  // __attribute__((target("...")))
#define gemm_panel_avx512 gemm_panel_avx512_emulated
#define attention_fold_avx512 attention_fold_avx512_emulated
#define widen_codes_avx512 widen_codes_avx512_emulated
#define pair_up_avx512 pair_up_avx512_emulated
#define gemm_panel_codes_avx512 gemm_panel_codes_avx512_emulated
#define quantise_avx512 quantise_avx512_emulated
#define gemm_panel_int8_avx512 gemm_panel_int8_avx512_emulated
#include "kernels/cpu/attention_avx512.cc"
#include "kernels/cpu/gemm_avx512.cc"
#include "kernels/cpu/gemm_codes_avx512.cc"
#include "kernels/cpu/gemm_int8_avx512.cc"
