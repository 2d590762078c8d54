#pragma once

#include "kernels/cpu/isa_kernels.h"

namespace spillway::cpu {

// gemm_panel_avx512, on machines without AVX-512 as well; but that it does not flush denormals.
void gemm_panel_avx512_emulated(const GemmPanel& args);

}  // namespace spillway::cpu
