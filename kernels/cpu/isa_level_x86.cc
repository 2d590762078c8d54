#include <iterator>

#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/isa_level.h"

namespace spillway::cpu {
namespace {

constexpr IsaLevel kLevels[] = {
    kScalarLevel,
    {.name = "avx2",
     .backend_name = "cpu/avx2",
     .numerics = {{kNumericsCpuAvx2Rev2, kNumericsCpuAvx2Kv8}, {kNumericsCpuAvx2Act8, kNumericsCpuAvx2Act8Kv8}},
     .gemm_panel = gemm_panel_avx2,
     .codes = {{.gemm_panel = gemm_panel_avx2}, {sizeof(ActivationBlock), quantise_avx2, gemm_panel_int8_avx2}},
     .attention_fold = attention_fold_avx2,
     .widen_codes = widen_codes_avx2},
    {.name = "avx512bf16",
     .backend_name = "cpu/avx512bf16",
     .numerics = {{kNumericsCpuAvx512Bf16Rev2, kNumericsCpuAvx512Bf16Rev2Kv8},
                  {kNumericsCpuAvx512Bf16Act8, kNumericsCpuAvx512Bf16Act8Kv8}},
     .gemm_panel = gemm_panel_avx512,
     .codes = {{sizeof(PairBlock), pair_up_avx512, gemm_panel_codes_avx512},
               {sizeof(ActivationBlock), quantise_avx512, gemm_panel_int8_avx512}},
     .attention_fold = attention_fold_avx512,
     .widen_codes = widen_codes_avx512},
};

}  // namespace

std::span<const IsaLevel> available_levels(const Precision& precision) {
  // A prefix of the table: AVX-512 comes only with AVX2, FMA and F16C below it.
  const bool avx512 = has_avx512_bf16() && (precision.activations == Activations::kBf16 || has_avx512_vnni());
  const size_t count = !has_avx2() ? 1 : !avx512 ? 2 : std::size(kLevels);
  return std::span<const IsaLevel>(kLevels).first(count);
}

}  // namespace spillway::cpu
