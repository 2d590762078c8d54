#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/cpu/dequantize.h"
#include "tests/kernels/backend_cases.h"

// Quantised matrices for the tests of narrow weights.
namespace spillway {

struct QuantisedType {
  const char* name;
  StoredType type;
  size_t scales_at, scales;  // place and number of a block's f16 scales
  double bytes_per_value;    // packed
};
inline constexpr QuantisedType kQuantisedTypes[] = {
    {"Q4_0", StoredType::kQ4_0, 0, 1, 0.625}, {"Q4_1", StoredType::kQ4_1, 0, 2, 0.625},
    {"Q5_0", StoredType::kQ5_0, 0, 1, 1.125}, {"Q5_1", StoredType::kQ5_1, 0, 2, 1.125},
    {"Q8_0", StoredType::kQ8_0, 0, 1, 1.125}, {"Q4_K", StoredType::kQ4_K, 0, 2, 0.75},
    {"Q5_K", StoredType::kQ5_K, 0, 2, 1.25},  {"Q6_K", StoredType::kQ6_K, 208, 1, 1.5}};

// A matrix of any bits but for its scales, which are of either sign, some denormal, and make values of up to about 1.
struct QuantisedMatrix {
  std::vector<std::byte> bytes;
  FileTensor tensor;
  std::vector<float> values;  // [rows, cols]

  QuantisedMatrix(const QuantisedType& type, uint32_t rows, uint32_t cols, uint32_t seed) {
    const cpu::StoredBlock block = cpu::stored_block(type.type);
    bytes.resize(cpu::stored_row_bytes(type.type, cols) * rows);
    Values random(seed);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.below(256));
    const uint32_t exponents = block.values == 256 ? 4 : 8;  // of f16: up to 2^-12, 2^-8
    for (size_t at = type.scales_at; at < bytes.size(); at += block.bytes)
      for (size_t i = 0; i < type.scales; ++i) {
        const auto scale =
            static_cast<uint16_t>(random.below(2) << 15 | random.below(exponents) << 10 | random.below(1024));
        std::memcpy(&bytes[at + i * sizeof scale], &scale, sizeof scale);
      }
    tensor = {type.name, type.type, rows, cols, bytes};
    values.resize(size_t{rows} * cols);
    for (uint32_t row = 0; row < rows; ++row)
      cpu::dequantize(tensor, row, 0, std::span(values).subspan(size_t{row} * cols, cols));
  }
  QuantisedMatrix(const QuantisedMatrix&) = delete;
  QuantisedMatrix& operator=(const QuantisedMatrix&) = delete;
};

inline constexpr uint32_t kNarrowDepths[] = {32, 96, 256, 576, 1536, 4096};

inline bool takes(const QuantisedType& type, uint32_t depth) {
  return depth % cpu::stored_block(type.type).values == 0;
}

// Activations whose products with codes, and their sums, f32 holds exactly.
inline std::vector<uint16_t> small_integers(size_t count, uint32_t seed) {
  Values random(seed);
  std::vector<uint16_t> out(count);
  for (uint16_t& value : out) value = bf16_from_f32(static_cast<float>(random.below(7)) - 3);
  return out;
}

// A row of small_integers() times a column, as classes 15 and 16 define it (docs/numerics.md).
inline float product_by_blocks(const QuantisedMatrix& matrix, uint32_t column, const uint16_t* a, uint32_t block) {
  const uint32_t stored = cpu::stored_block(matrix.tensor.type).values;
  float sum = 0;
  for (uint32_t first = 0; first < matrix.tensor.cols; first += stored) {
    cpu::Codes codes;
    cpu::read_codes(matrix.tensor, column, first, codes);
    for (uint32_t at = 0; at < stored; at += block) {
      float dot = 0, activations = 0;
      for (uint32_t k = at; k < at + block; ++k) {
        activations += f32_from_bf16(a[first + k]);
        dot += f32_from_bf16(a[first + k]) * static_cast<float>(codes.codes[k]);
      }
      const uint32_t scale = at / cpu::Codes::kPerScale;
      sum = std::fma(codes.d[scale], dot, std::fma(codes.m[scale], activations, sum));
    }
  }
  return sum;
}

inline float product_by_blocks(const QuantisedMatrix& matrix, uint32_t column, const uint16_t* a) {
  return product_by_blocks(matrix, column, a, matrix.tensor.type == StoredType::kQ6_K ? 16 : 32);
}

inline std::vector<float> multiply(Backend& backend, std::vector<uint16_t> a, uint32_t rows, const Weight& weight) {
  std::vector<float> out(size_t{rows} * weight.rows);
  backend.gemm({view(a, {rows, weight.cols}), &weight, Epilogue::kNone, view(out, {rows, weight.rows})});
  return out;
}

}  // namespace spillway
