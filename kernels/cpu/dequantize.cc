#include "kernels/cpu/dequantize.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "common/check.h"
#include "kernels/bf16.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kBlockValues = 32;
constexpr size_t kQ8Bytes = 2 + 32;      // f16 d, 32 x int8
constexpr size_t kQ4Bytes = 2 + 2 + 16;  // f16 d, f16 m, 16 x two 4-bit values: j in the low half, j + 16 in the high

uint16_t load_u16(const std::byte* bytes) {
  uint16_t value = 0;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

void dequantize_q8_0(const std::byte* block, float* out) {
  const float d = f32_from_f16(load_u16(block));
  for (uint32_t j = 0; j < kBlockValues; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(block[2 + j]));
}

void dequantize_q4_1(const std::byte* block, float* out) {
  const float d = f32_from_f16(load_u16(block));
  const float m = f32_from_f16(load_u16(block + 2));
  for (uint32_t j = 0; j < kBlockValues / 2; ++j) {
    const auto both = std::to_integer<uint32_t>(block[4 + j]);
    out[j] = d * static_cast<float>(both & 15u) + m;
    out[j + kBlockValues / 2] = d * static_cast<float>(both >> 4) + m;
  }
}

}  // namespace

float f32_from_f16(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 31u;
  const uint32_t fraction = bits & 0x3ffu;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (fraction << 13));
  if (exponent == 0) {
    const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (fraction << 13));
}

size_t stored_row_bytes(StoredType type, uint32_t cols) {
  switch (type) {
    case StoredType::kF32: return size_t{cols} * 4;
    case StoredType::kBf16: return size_t{cols} * 2;
    case StoredType::kQ8_0: return cols / kBlockValues * kQ8Bytes;
    case StoredType::kQ4_1: return cols / kBlockValues * kQ4Bytes;
  }
  check_failed("stored type is known", std::source_location::current());
}

void check_stored(const FileTensor& tensor) {
  const bool blocks = tensor.type == StoredType::kQ8_0 || tensor.type == StoredType::kQ4_1;
  if (tensor.rows == 0 || tensor.cols == 0 || (blocks && tensor.cols % kBlockValues != 0)) {
    throw SetupError(
        fmt::format("tensor {}: shape {} x {} is not supported (rows and cols above 0; cols a multiple of "
                    "{} for block types)",
                    tensor.name, tensor.rows, tensor.cols, kBlockValues));
  }
  const size_t expected = stored_row_bytes(tensor.type, tensor.cols) * tensor.rows;
  if (tensor.bytes.size() != expected) {
    throw SetupError(fmt::format("tensor {}: {} bytes stored, {} x {} needs {}", tensor.name, tensor.bytes.size(),
                                 tensor.rows, tensor.cols, expected));
  }
}

void dequantize_row(const FileTensor& tensor, uint32_t row, std::span<float> out) {
  CHECK(row < tensor.rows && out.size() == tensor.cols);
  const size_t row_bytes = stored_row_bytes(tensor.type, tensor.cols);
  const std::byte* source = tensor.bytes.data() + row * row_bytes;
  switch (tensor.type) {
    case StoredType::kF32: std::memcpy(out.data(), source, row_bytes); return;
    case StoredType::kBf16:
      for (uint32_t i = 0; i < tensor.cols; ++i) out[i] = f32_from_bf16(load_u16(source + size_t{i} * 2));
      return;
    case StoredType::kQ8_0:
      for (uint32_t i = 0; i < tensor.cols; i += kBlockValues, source += kQ8Bytes) dequantize_q8_0(source, &out[i]);
      return;
    case StoredType::kQ4_1:
      for (uint32_t i = 0; i < tensor.cols; i += kBlockValues, source += kQ4Bytes) dequantize_q4_1(source, &out[i]);
      return;
  }
}

}  // namespace spillway::cpu
