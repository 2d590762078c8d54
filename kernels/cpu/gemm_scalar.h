#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cpu/isa_kernels.h"
#include "kernels/cpu/stored_blocks.h"

// What the scalar products of bf16 and of int8 activations share.
namespace spillway::cpu {

inline uint32_t code_of(uint32_t word, uint32_t value, uint32_t bits) {
  return bits == 8 ? word >> 8 * value & 255 : word >> (value % 4 * 8 + value / 4 * 4) & 15;
}

inline float scale_of(const std::byte* scales, uint32_t column, uint32_t bytes) {
  if (bytes == sizeof(uint16_t)) return f32_from_f16(reinterpret_cast<const uint16_t*>(scales)[column]);
  return reinterpret_cast<const float*>(scales)[column];
}

// The epilogue of one row, from the sums of its product.
void store_row_scalar(const GemmPanel& args, uint32_t row, const float (&sums)[kPanelColumns]);

}  // namespace spillway::cpu
