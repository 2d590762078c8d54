#include <fmt/format.h>

#include <vector>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_weight.h"

namespace spillway::cpu {
namespace {

// The stored row that becomes one column of one panel; no tensor where the panel is padded.
struct SourceRow {
  const FileTensor* tensor = nullptr;
  uint32_t row = 0;
};

SourceRow source_of(std::span<const FileTensor> tensors, PackOrder order, uint32_t panel, uint32_t column) {
  if (order == PackOrder::kGateUp) {
    const uint32_t feature =
        panel * kPanelColumns / 2 + column / (2 * kGateUpGroup) * kGateUpGroup + column % kGateUpGroup;
    if (feature >= tensors[0].rows) return {};
    return {&tensors[column / kGateUpGroup % 2], feature};
  }
  uint32_t row = panel * kPanelColumns + column;
  for (const FileTensor& tensor : tensors) {
    if (row < tensor.rows) return {&tensor, row};
    row -= tensor.rows;
  }
  return {};
}

// The packed matrix of these tensors, still without memory. Throws SetupError for shapes that are not supported.
Weight packed_shape(std::span<const FileTensor> tensors, PackOrder order) {
  CHECK(!tensors.empty());
  CHECK(order == PackOrder::kRows || (tensors.size() == 2 && tensors[0].rows == tensors[1].rows));
  uint64_t rows = 0;
  for (const FileTensor& tensor : tensors) {
    CHECK(tensor.cols == tensors[0].cols);
    check_stored(tensor);
    rows += tensor.rows;
  }
  if (rows > UINT32_MAX - kPanelColumns) {
    throw SetupError(fmt::format("tensor {}: {} output features are not supported, at most {} are", tensors[0].name,
                                 rows, UINT32_MAX - kPanelColumns));
  }
  Weight weight{.rows = static_cast<uint32_t>(rows), .cols = tensors[0].cols, .order = order};
  weight.bytes = panel_count(weight.rows, order) * panel_elements(weight.cols) * sizeof(uint16_t);
  return weight;
}

}  // namespace

Weight CpuBackend::pack(std::span<const FileTensor> tensors, PackOrder order) {
  Weight weight = packed_shape(tensors, order);
  const std::span<std::byte> memory = allocate(weight.bytes);
  weight.data = memory.data();
  auto* const packed = reinterpret_cast<uint16_t*>(memory.data());

  const uint32_t depth = weight.cols;
  const FlushDenormals flush;
  std::vector<float> rows_f32(size_t{pool_.thread_count()} * depth);
  pool_.parallel_for(panel_count(weight.rows, order), [&](uint32_t panel, uint32_t thread) {
    const std::span<float> values(&rows_f32[size_t{thread} * depth], depth);
    for (uint32_t column = 0; column < kPanelColumns; ++column) {
      const SourceRow source = source_of(tensors, order, panel, column);
      if (source.tensor == nullptr) continue;  // padding: allocate() zeroes
      dequantize_row(*source.tensor, source.row, values);
      uint16_t* out = packed + panel * panel_elements(depth) + size_t{column} * 2;
      for (uint32_t k = 0; k < depth; ++k) out[size_t{k / 2} * 2 * kPanelColumns + k % 2] = bf16_from_f32(values[k]);
    }
  });
  return weight;
}

size_t CpuBackend::packed_bytes(std::span<const FileTensor> tensors, PackOrder order) const {
  return packed_shape(tensors, order).bytes;
}

Weight CpuBackend::adopt(std::span<const FileTensor> tensors, PackOrder order, std::span<const std::byte> packed) {
  Weight weight = packed_shape(tensors, order);
  CHECK(packed.size() == weight.bytes);
  weight.data = packed.data();
  return weight;
}

}  // namespace spillway::cpu
