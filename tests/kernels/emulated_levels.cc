#include "tests/kernels/emulated_levels.h"

#include "tests/kernels/avx512_emulated.h"

namespace spillway::cpu {

std::span<const IsaLevel> emulated_levels() {
  static const IsaLevel level = [] {
    IsaLevel emulated = kScalarLevel;
    emulated.name = "avx512_emulated";
    emulated.numerics[0][0] = kNumericsCpuAvx512Bf16Rev2;
    emulated.numerics[0][1] = kNumericsCpuAvx512Bf16Rev2Kv8;
    emulated.attention_fold = attention_fold_avx512_emulated;
    emulated.widen_codes = widen_codes_avx512_emulated;
    return emulated;
  }();
  return {&level, 1};
}

}  // namespace spillway::cpu
