#pragma once

#include "kv/block.h"

// The append-only table of numerics classes; docs/numerics.md says what each one rounds. Bits of logits or KV that
// change need a new id: an old block or peer must never pass for the same class.
namespace spillway {

// 1, 2 and 3 were cpu/scalar, cpu/avx512bf16 and cpu/avx2 rev 1, 7 was 2 with KvDtype::kInt8.
inline constexpr NumericsClass kNumericsCpuScalarRev2{4};
inline constexpr NumericsClass kNumericsCpuAvx2Rev2{5};
inline constexpr NumericsClass kNumericsCpuAvx512Bf16Rev2{15};
// With KvDtype::kInt8.
inline constexpr NumericsClass kNumericsCpuScalarKv8{6};
inline constexpr NumericsClass kNumericsCpuAvx2Kv8{8};
inline constexpr NumericsClass kNumericsCpuAvx512Bf16Rev2Kv8{16};
// With Activations::kInt8.
inline constexpr NumericsClass kNumericsCpuScalarAct8{9};
inline constexpr NumericsClass kNumericsCpuAvx512Bf16Act8{10};
inline constexpr NumericsClass kNumericsCpuAvx2Act8{11};
// With both.
inline constexpr NumericsClass kNumericsCpuScalarAct8Kv8{12};
inline constexpr NumericsClass kNumericsCpuAvx512Bf16Act8Kv8{13};
inline constexpr NumericsClass kNumericsCpuAvx2Act8Kv8{14};

// What products take: kInt8, where weights are stored as codes, makes int8 codes of each 32 values of a row first.
enum class Activations : uint8_t { kBf16, kInt8 };

// What a run may choose beside the ISA level; the numerics class of a backend follows from both.
struct Precision {
  Activations activations = Activations::kBf16;
  KvDtype kv = KvDtype::kBf16;
};

}  // namespace spillway
