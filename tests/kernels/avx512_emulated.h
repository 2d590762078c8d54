#pragma once

#include "kernels/cpu/isa_kernels.h"

namespace spillway::cpu {

// gemm_panel_avx512 and so on, on machines without AVX-512 as well; but that they do not flush denormals.
void gemm_panel_avx512_emulated(const GemmPanel& args);
void attention_fold_avx512_emulated(const AttentionFold& args);
void widen_codes_avx512_emulated(const CodesToWiden& args);
void pair_up_avx512_emulated(const uint16_t* values, size_t count, void* blocks);
void gemm_panel_codes_avx512_emulated(const GemmPanel& args);
void quantise_avx512_emulated(const uint16_t* values, size_t count, void* blocks);
void gemm_panel_int8_avx512_emulated(const GemmPanel& args);

}  // namespace spillway::cpu
