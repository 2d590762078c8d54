#pragma once

namespace spillway::cpu {

// Whether this CPU and its operating system (XCR0) can run code compiled for SPILLWAY_AVX2 (kernels/cpu/avx2.h), and
// for SPILLWAY_AVX512 and SPILLWAY_VNNI (kernels/cpu/avx512.h): asked feature by feature, never by CPU name.
bool has_avx2();
bool has_avx512_bf16();
bool has_avx512_vnni();

}  // namespace spillway::cpu
