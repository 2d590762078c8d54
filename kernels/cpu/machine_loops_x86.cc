#include "kernels/cpu/avx512.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/machine_loops.h"

namespace spillway::cpu {
namespace {

constexpr int kChains = 24;  // independent sums: enough to hide the latency of any of the instructions
constexpr int kAvx2Chains = 12, kSseChains = 12;  // no more registers

// Each returns a value made of all sums, so that none can be dropped, and hides their start from the compiler, or it
// would see that all sums are the same one.
SPILLWAY_AVX512 float bf16_loop(uint32_t steps) {
  __m512 sums[kChains] = {};
#pragma GCC unroll 24
  for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  __m512i ones = _mm512_set1_epi32(0x3f803f80);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+v"(ones));  // or the compiler would hoist products
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)ones, (__m512bh)ones);
  }
  __m512 all = sums[0];
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sums[i]);
  return _mm512_reduce_add_ps(all);
}

SPILLWAY_VNNI float int8_loop(uint32_t steps) {
  __m512i sums[kChains] = {};
#pragma GCC unroll 24
  for (__m512i& sum : sums) __asm__ volatile("" : "+v"(sum));
  __m512i ones = _mm512_set1_epi8(1);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+v"(ones));
#pragma GCC unroll 24
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, ones, ones);
  }
  __m512i all = sums[0];
#pragma GCC unroll 24  // or GCC 12 keeps the sums in memory, and their stores are what is measured
  for (int i = 1; i < kChains; ++i) all = _mm512_add_epi32(all, sums[i]);
  return static_cast<float>(_mm512_reduce_add_epi32(all));
}

SPILLWAY_AVX512 float f32_loop_avx512(uint32_t steps) {
  __m512 sums[kChains] = {};
#pragma GCC unroll 24
  for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  __m512 ones = _mm512_set1_ps(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+v"(ones));
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(ones, ones, sum);
  }
  __m512 all = sums[0];
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sums[i]);
  return _mm512_reduce_add_ps(all);
}

__attribute__((target("avx2,fma"))) float f32_loop_avx2(uint32_t steps) {
  __m256 sums[kAvx2Chains] = {};
#pragma GCC unroll 12
  for (__m256& sum : sums) __asm__ volatile("" : "+x"(sum));
  __m256 ones = _mm256_set1_ps(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+x"(ones));
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(ones, ones, sum);
    __asm__ volatile("" : "+x"(ones));
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(ones, ones, sum);
  }
  __m256 all = sums[0];
  for (int i = 1; i < kAvx2Chains; ++i) all = _mm256_add_ps(all, sums[i]);
  return _mm256_cvtss_f32(all);
}

float f32_loop_sse(uint32_t steps) {
  __m128 sums[kSseChains] = {};
#pragma GCC unroll 12
  for (__m128& sum : sums) __asm__ volatile("" : "+x"(sum));
  __m128 ones = _mm_set1_ps(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+x"(ones));
#pragma GCC unroll 12
    for (__m128& sum : sums) sum = _mm_add_ps(_mm_mul_ps(ones, ones), sum);
  }
  __m128 all = sums[0];
  for (int i = 1; i < kSseChains; ++i) all = _mm_add_ps(all, sums[i]);
  return _mm_cvtss_f32(all);
}

}  // namespace

MachineLoops machine_loops() {
  MachineLoops loops;
  if (has_avx512_bf16()) loops.bf16 = {64.0 * kChains, bf16_loop};
  if (has_avx512_vnni()) loops.int8 = {128.0 * kChains, int8_loop};
  if (has_avx512_bf16()) {
    loops.f32 = {32.0 * kChains, f32_loop_avx512};
  } else if (has_avx2()) {
    loops.f32 = {16.0 * 2 * kAvx2Chains, f32_loop_avx2};
  } else {
    loops.f32 = {8.0 * kSseChains, f32_loop_sse};
  }
  return loops;
}

}  // namespace spillway::cpu
