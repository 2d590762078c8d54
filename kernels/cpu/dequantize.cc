#include "kernels/cpu/dequantize.h"

#include <fmt/format.h>

#include "common/check.h"

namespace spillway::cpu {
namespace {

struct Format {
  const char* name;
  StoredBlock block;
  DecodeBlocks* decode;
  ReadCodes* read = nullptr;  // of the quantised types
};

Format format_of(StoredType type) {
  switch (type) {
    case StoredType::kF32: return {"F32", {1, 4}, decode_f32};
    case StoredType::kF16: return {"F16", {1, 2}, decode_f16};
    case StoredType::kBf16: return {"BF16", {1, 2}, decode_bf16};
    case StoredType::kQ8_0: return {"Q8_0", {32, 34}, decode_q8_0, read_q8_0};
    case StoredType::kQ4_0: return {"Q4_0", {32, 18}, decode_q4_0, read_q4_0};
    case StoredType::kQ4_1: return {"Q4_1", {32, 20}, decode_q4_1, read_q4_1};
    case StoredType::kQ5_0: return {"Q5_0", {32, 22}, decode_q5_0, read_q5_0};
    case StoredType::kQ5_1: return {"Q5_1", {32, 24}, decode_q5_1, read_q5_1};
    case StoredType::kQ4_K: return {"Q4_K", {256, 144}, decode_q4_k, read_q4_k};
    case StoredType::kQ5_K: return {"Q5_K", {256, 176}, decode_q5_k, read_q5_k};
    case StoredType::kQ6_K: return {"Q6_K", {256, 210}, decode_q6_k, read_q6_k};
  }
  check_failed("stored type is known", std::source_location::current());
}

const std::byte* block_at(const FileTensor& tensor, const StoredBlock& block, uint32_t row, uint32_t first) {
  const size_t index = size_t{row} * (tensor.cols / block.values) + first / block.values;
  return tensor.bytes.data() + index * block.bytes;
}

}  // namespace

StoredBlock stored_block(StoredType type) { return format_of(type).block; }

size_t stored_row_bytes(StoredType type, uint32_t cols) {
  const StoredBlock block = stored_block(type);
  return size_t{cols} / block.values * block.bytes;
}

void check_stored(const FileTensor& tensor) {
  const Format format = format_of(tensor.type);
  if (tensor.rows == 0 || tensor.cols == 0 || tensor.cols % format.block.values != 0) {
    throw SetupError(fmt::format(
        "tensor {} of type {}: shape {} x {} is not supported (rows and cols above 0, cols a multiple of {})",
        tensor.name, format.name, tensor.rows, tensor.cols, format.block.values));
  }
  const size_t expected = stored_row_bytes(tensor.type, tensor.cols) * tensor.rows;
  if (tensor.bytes.size() != expected) {
    throw SetupError(fmt::format("tensor {} of type {}: {} bytes stored, {} x {} needs {}", tensor.name, format.name,
                                 tensor.bytes.size(), tensor.rows, tensor.cols, expected));
  }
}

void dequantize(const FileTensor& tensor, uint32_t row, uint32_t first, std::span<float> out) {
  const Format format = format_of(tensor.type);
  const StoredBlock block = format.block;
  CHECK(row < tensor.rows && first <= tensor.cols && out.size() <= tensor.cols - first);
  CHECK(first % block.values == 0 && out.size() % block.values == 0);
  format.decode(block_at(tensor, block, row, first), out.size() / block.values, out.data());
}

void read_codes(const FileTensor& tensor, uint32_t row, uint32_t first, Codes& out) {
  const Format format = format_of(tensor.type);
  CHECK(format.read != nullptr && row < tensor.rows && first < tensor.cols && first % format.block.values == 0);
  format.read(block_at(tensor, format.block, row, first), out);
}

}  // namespace spillway::cpu
