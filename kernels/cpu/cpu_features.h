#pragma once

namespace spillway::cpu {

// Whether this CPU and its operating system (XCR0) can run code compiled for SPILLWAY_AVX512 (kernels/cpu/avx512.h):
// asked feature by feature, never by CPU name.
bool has_avx512_bf16();

// Whether 256-bit fused multiply-add may be used (the peak measurement of machines without AVX-512).
bool has_avx2_fma();

}  // namespace spillway::cpu
