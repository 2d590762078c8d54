#pragma once

#include <span>
#include <string_view>

#include "kernels/cpu/isa_kernels.h"
#include "kernels/numerics.h"

namespace spillway::cpu {

// Products with panels of codes. `prepare` makes of every 32 values of `a` a block of block_bytes, which the product
// takes; 0: it takes `a` as it is.
struct CodesProduct {
  size_t block_bytes = 0;
  void (*prepare)(const uint16_t* values, size_t count, void* blocks) = nullptr;
  void (*gemm_panel)(const GemmPanel&) = nullptr;
};

// What differs between ISA levels: the inner bodies, and so the rounding.
struct IsaLevel {
  std::string_view name, backend_name;             // "scalar", "cpu/scalar"
  NumericsClass numerics[2][2]{};                  // by Activations, then KvDtype
  void (*gemm_panel)(const GemmPanel&) = nullptr;  // of PanelFormat::kBf16
  CodesProduct codes[2]{};                         // by Activations
  void (*attention_fold)(const AttentionFold&) = nullptr;
  void (*widen_codes)(const CodesToWiden&) = nullptr;
};

// Of every processor family; the others stand in the table of theirs.
inline constexpr IsaLevel kScalarLevel = {
    .name = "scalar",
    .backend_name = "cpu/scalar",
    .numerics = {{kNumericsCpuScalarRev2, kNumericsCpuScalarKv8}, {kNumericsCpuScalarAct8, kNumericsCpuScalarAct8Kv8}},
    .gemm_panel = gemm_panel_scalar,
    .codes = {{.gemm_panel = gemm_panel_scalar}, {sizeof(ActivationBlock), quantise_scalar, gemm_panel_int8_scalar}},
    .attention_fold = attention_fold_scalar,
    .widen_codes = widen_codes_scalar};

// Levels that this machine can run with this precision, slowest first. Never empty. The table is that of the processor
// family this is built for: isa_level_x86.cc, isa_level_arm.cc.
std::span<const IsaLevel> available_levels(const Precision& precision);

}  // namespace spillway::cpu
