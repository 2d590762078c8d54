// The AVX-512 products compiled for any x86-64 machine, with the intrinsics of SIMDe and, below, those that it has not:
// what they compute is then tested everywhere, how fast they are nowhere.
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

simde__m256i emulated_cvtneps_pbh(__m512 values) {
  float from[kWords];
  uint16_t bits[kWords];
  std::memcpy(from, &values, sizeof from);
  for (int i = 0; i < kWords; ++i) bits[i] = bf16_from_f32(from[i]);
  simde__m256i narrow;
  std::memcpy(&narrow, bits, sizeof bits);
  return narrow;
}

__m512bh emulated_cvtne2ps_pbh(__m512 high, __m512 low) {
  const simde__m256i halves[] = {emulated_cvtneps_pbh(low), emulated_cvtneps_pbh(high)};
  __m512bh both;
  std::memcpy(&both, halves, sizeof both);
  return both;
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

}  // namespace
}  // namespace spillway::cpu

#define _mm512_cvtph_ps emulated_cvtph_ps
#define _mm512_cvtepi32_ps emulated_cvtepi32_ps
#define _mm512_cvtne2ps_pbh emulated_cvtne2ps_pbh
#define _mm512_cvtneps_pbh emulated_cvtneps_pbh
#define _mm512_mask_storeu_ps emulated_mask_storeu<float>
#define _mm256_mask_storeu_epi16 emulated_mask_storeu<uint16_t>
#define _mm512_maskz_loadu_ps emulated_maskz_loadu_ps
#define target(isa) unused  // __attribute__((target("...")))
#define gemm_panel_avx512 gemm_panel_avx512_emulated
#include "kernels/cpu/gemm_avx512.cc"
