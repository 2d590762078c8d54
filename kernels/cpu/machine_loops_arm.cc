#include <arm_neon.h>

#include "kernels/cpu/machine_loops.h"

namespace spillway::cpu {
namespace {

constexpr int kChains = 24;  // independent sums: enough to hide the latency

// Returns a value made of all sums, so that none can be dropped, and hides their start from the compiler, or it would
// see that all sums are the same one.
float f32_loop(uint32_t steps) {
  float32x4_t sums[kChains] = {};
#pragma GCC unroll 24
  for (float32x4_t& sum : sums) __asm__ volatile("" : "+w"(sum));
  float32x4_t ones = vdupq_n_f32(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+w"(ones));  // or the compiler would hoist products
#pragma GCC unroll 24
    for (float32x4_t& sum : sums) sum = vfmaq_f32(sum, ones, ones);
  }
  float32x4_t all = sums[0];
  for (int i = 1; i < kChains; ++i) all = vaddq_f32(all, sums[i]);
  return vgetq_lane_f32(all, 0);
}

}  // namespace

MachineLoops machine_loops() { return {.bf16 = {}, .int8 = {}, .f32 = {8.0 * kChains, f32_loop}}; }

}  // namespace spillway::cpu
