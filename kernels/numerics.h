#pragma once

#include "kv/block.h"

// The append-only table of numerics classes; docs/numerics.md says what each one rounds. Bits of logits or KV that
// change need a new id: an old block or peer must never pass for the same class.
namespace spillway {

// 1 and 3 were cpu/scalar and cpu/avx2 rev 1.
inline constexpr NumericsClass kNumericsCpuAvx512Bf16Rev1{2};
inline constexpr NumericsClass kNumericsCpuScalarRev2{4};
inline constexpr NumericsClass kNumericsCpuAvx2Rev2{5};

}  // namespace spillway
