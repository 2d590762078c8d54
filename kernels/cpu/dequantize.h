#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/tensor.h"

namespace spillway::cpu {

// Bytes of one stored row. REQUIRES cols a multiple of 32 for block types.
size_t stored_row_bytes(StoredType type, uint32_t cols);

// Throws SetupError naming the tensor when its bytes or cols do not fit its type.
void check_stored(const FileTensor& tensor);

// One row as f32: exact for F32, BF16 and Q8_0 (d * q); Q4_1 is d * q + m, rounded once by the sum, as GGUF defines it.
void dequantize_row(const FileTensor& tensor, uint32_t row, std::span<float> out);  // out: [cols]

float f32_from_f16(uint16_t bits);

}  // namespace spillway::cpu
