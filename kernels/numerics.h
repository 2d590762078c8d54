#pragma once

#include "kv/block.h"

// The append-only table of numerics classes; docs/numerics.md says what each one rounds. Bits of logits or KV that
// change need a new id: an old block or peer must never pass for the same class.
namespace spillway {

inline constexpr NumericsClass kNumericsCpuScalarRev1{1};
inline constexpr NumericsClass kNumericsCpuAvx512Bf16Rev1{2};

}  // namespace spillway
