#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/cpu/stored_blocks.h"
#include "kernels/tensor.h"

namespace spillway::cpu {

// What stored values are worth, as ggml defines it (ggml-quants.c, dequantize_row_*). d, m: f16 of the block; s, t:
// small integers of a part of it; q: the value's own bits.
//
//   type   block  value                          q                  s, t
//   F32    1      the value
//   F16    1      the value
//   BF16   1      the value
//   Q8_0   32     d * q                          -128..127
//   Q4_0   32     d * (q - 8)                    0..15
//   Q4_1   32     d * q + m                      0..15
//   Q5_0   32     d * (q - 16)                   0..31
//   Q5_1   32     d * q + m                      0..31
//   Q4_K   256    (d * s) * q - (m * t)          0..15              s, t: 0..63 for each 32 values
//   Q5_K   256    (d * s) * q - (m * t)          0..31              s, t: 0..63 for each 32 values
//   Q6_K   256    (d * s) * (q - 32)             0..63              s: -128..127 for each 16 values
//
// In f32. Every product is exact: the 11 bits of an f16 and those of its factors are 24 at most. So a value is exact,
// or, where there is a sum, rounded once by it; with or without fused multiply-adds the bits are the same. What is
// computed is a multiple of 2^-24, never a denormal f32, so flushing denormals changes none; F32 and BF16 are copied.
// NaN and infinite d or m stay so.

// Values and bytes of one block.
struct StoredBlock {
  uint32_t values = 1, bytes = 0;
};
StoredBlock stored_block(StoredType type);

// Bytes of one stored row. REQUIRES cols a multiple of the block's values.
size_t stored_row_bytes(StoredType type, uint32_t cols);

// Throws SetupError naming the tensor when its bytes or cols do not fit its type.
void check_stored(const FileTensor& tensor);

// Values first .. first + out.size() of a row, as f32. REQUIRES check_stored() and both a multiple of the block's
// values.
void dequantize(const FileTensor& tensor, uint32_t row, uint32_t first, std::span<float> out);

// The stored block that begins with value `first` of a row, as codes. REQUIRES as dequantize(), and a quantised type.
void read_codes(const FileTensor& tensor, uint32_t row, uint32_t first, Codes& out);

}  // namespace spillway::cpu
