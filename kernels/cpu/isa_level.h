#pragma once

#include <span>
#include <string_view>

#include "kernels/cpu/isa_kernels.h"
#include "kernels/numerics.h"

namespace spillway::cpu {

// What differs between ISA levels: the inner bodies, and so the rounding.
struct IsaLevel {
  std::string_view name, backend_name;  // "scalar", "cpu/scalar"
  NumericsClass numerics[2][2]{};       // by Activations, then KvDtype
  void (*gemm_panel)(const GemmPanel&) = nullptr;
  void (*quantise)(const uint16_t* values, size_t count, ActivationBlock* out) = nullptr;
  void (*gemm_panel_int8)(const GemmPanel&) = nullptr;
  void (*attention_fold)(const AttentionFold&) = nullptr;
  void (*widen_codes)(const CodesToWiden&) = nullptr;
};

// Of every processor family; the others stand in the table of theirs.
inline constexpr IsaLevel kScalarLevel = {
    .name = "scalar",
    .backend_name = "cpu/scalar",
    .numerics = {{kNumericsCpuScalarRev2, kNumericsCpuScalarKv8}, {kNumericsCpuScalarAct8, kNumericsCpuScalarAct8Kv8}},
    .gemm_panel = gemm_panel_scalar,
    .quantise = quantise_scalar,
    .gemm_panel_int8 = gemm_panel_int8_scalar,
    .attention_fold = attention_fold_scalar,
    .widen_codes = widen_codes_scalar};

// Levels that this machine can run with this precision, slowest first. Never empty. The table is that of the processor
// family this is built for: isa_level_x86.cc, isa_level_arm.cc.
std::span<const IsaLevel> available_levels(const Precision& precision);

}  // namespace spillway::cpu
