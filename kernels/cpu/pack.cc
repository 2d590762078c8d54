#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/processor.h"

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
    if (row < tensor.rows)
      return {&tensor, tensor.half_split_rows == 0 ? row : half_split_source(row, tensor.half_split_rows)};
    row -= tensor.rows;
  }
  return {};
}

PanelFormat format_of(StoredType type) {
  switch (type) {
    case StoredType::kF32:
    case StoredType::kF16:
    case StoredType::kBf16: return PanelFormat::kBf16;
    case StoredType::kQ4_0:
    case StoredType::kQ4_1: return PanelFormat::kCodes4F16;
    case StoredType::kQ5_0:
    case StoredType::kQ5_1:
    case StoredType::kQ8_0: return PanelFormat::kCodes8F16;
    case StoredType::kQ4_K: return PanelFormat::kCodes4F32;
    case StoredType::kQ5_K: return PanelFormat::kCodes8F32;
    case StoredType::kQ6_K: return PanelFormat::kCodes8F32By16;
  }
  check_failed("stored type is known", std::source_location::current());
}

PanelFormat format_of(std::span<const FileTensor> tensors) {
  const PanelFormat first = format_of(tensors[0].type);
  PanelFormat all = first;
  for (const FileTensor& tensor : tensors) {
    const PanelFormat format = format_of(tensor.type);
    if (format == PanelFormat::kBf16) return format;
    if (format != first) all = PanelFormat::kCodes8F32By16;
  }
  return all;
}

// The packed matrix of these tensors, still without memory. Throws SetupError for shapes that are not supported.
Weight packed_shape(std::span<const FileTensor> tensors, PackOrder order) {
  CHECK(!tensors.empty());
  CHECK(order == PackOrder::kRows || (tensors.size() == 2 && tensors[0].rows == tensors[1].rows));
  uint64_t rows = 0;
  for (const FileTensor& tensor : tensors) {
    CHECK(tensor.cols == tensors[0].cols);
    const uint32_t run = tensor.half_split_rows;
    CHECK(run == 0 || (order == PackOrder::kRows && run % 2 == 0 && tensor.rows % run == 0));
    check_stored(tensor);
    rows += tensor.rows;
  }
  if (rows > UINT32_MAX - kPanelColumns) {
    throw SetupError(fmt::format("tensor {}: {} output features are not supported, at most {} are", tensors[0].name,
                                 rows, UINT32_MAX - kPanelColumns));
  }
  Weight weight{.rows = static_cast<uint32_t>(rows), .cols = tensors[0].cols, .order = order};
  const PanelFormat format = format_of(tensors);
  weight.format = static_cast<uint8_t>(format);
  weight.bytes = panel_count(weight.rows, order) * layout_of(format).panel_bytes(weight.cols);
  return weight;
}

// Columns of a panel go in tiles: 16 columns are one cache line of the panel for each word, so that it is written once
// and whole, and 16 x 256 values stay in L1 meanwhile.
constexpr uint32_t kTileColumns = 16, kTileDepth = 256;
using Sources = SourceRow[kTileColumns];

// out[p * 64 + c] = values 2p (low half) and 2p + 1 of row c, as bf16; 0 where there is none.
void pack_pairs(const Sources& sources, uint32_t depth, uint32_t* out) {
  float values[kTileDepth];
  uint32_t pairs[kTileColumns][kTileDepth / 2] = {};
  for (uint32_t first = 0; first < depth; first += kTileDepth) {
    const uint32_t count = std::min(kTileDepth, depth - first), pair_count = (count + 1) / 2;
    if (count % 2 != 0) values[count] = 0;
    for (uint32_t c = 0; c < kTileColumns; ++c) {
      if (sources[c].tensor == nullptr) continue;
      dequantize(*sources[c].tensor, sources[c].row, first, {values, count});
      for (uint32_t p = 0; p < pair_count; ++p)
        pairs[c][p] = bf16_from_f32(values[2 * p]) | uint32_t{bf16_from_f32(values[2 * p + 1])} << 16;
    }
    for (uint32_t p = 0; p < pair_count; ++p, out += kPanelColumns)
      for (uint32_t c = 0; c < kTileColumns; ++c) out[c] = pairs[c][p];
  }
}

// The codes of `count` values of a row; zeros where there is none.
void read_column(const SourceRow& source, uint32_t first, uint32_t count, Codes& out) {
  if (source.tensor == nullptr) {
    out = {};
    return;
  }
  const uint32_t block_values = stored_block(source.tensor->type).values;
  for (uint32_t at = 0; at < count; at += block_values) {
    Codes block;
    read_codes(*source.tensor, source.row, first + at, block);
    std::copy_n(block.codes, block_values, out.codes + at);
    std::copy_n(block.d, block_values / Codes::kPerScale, out.d + at / Codes::kPerScale);
    std::copy_n(block.m, block_values / Codes::kPerScale, out.m + at / Codes::kPerScale);
  }
}

uint32_t word_of(const uint8_t* codes, const PanelLayout& layout) {
  uint32_t low, high;
  std::memcpy(&low, codes, sizeof low);
  if (layout.value_bits == 8) return low;
  std::memcpy(&high, codes + sizeof low, sizeof high);
  return low | high << 4;
}

// Whether the panel's type holds it.
bool put_scale(float value, const PanelLayout& layout, std::byte* scales, uint32_t column) {
  if (layout.scale_bytes == sizeof value) {
    reinterpret_cast<float*>(scales)[column] = value;
    return true;
  }
  reinterpret_cast<uint16_t*>(scales)[column] = f16_from_f32(value);
  return !std::isfinite(value) || std::abs(value) <= kF16Max;
}

// One block of the panel, columns `column` and following, from values `at` and following of each row.
bool put_block(const Codes (&rows)[kTileColumns], uint32_t at, const PanelLayout& layout, std::byte* block,
               uint32_t column) {
  auto* const words = reinterpret_cast<uint32_t*>(block) + column;
  for (uint32_t word = 0; word < layout.block_words(); ++word)
    for (uint32_t c = 0; c < kTileColumns; ++c)
      words[word * kPanelColumns + c] = word_of(rows[c].codes + at + word * layout.word_values(), layout);
  std::byte* const d = block + size_t{layout.block_words()} * kPanelColumns * sizeof(uint32_t);
  std::byte* const m = d + kPanelColumns * layout.scale_bytes;
  bool fits = true;
  for (uint32_t c = 0; c < kTileColumns; ++c) {
    fits &= put_scale(rows[c].d[at / Codes::kPerScale], layout, d, column + c);
    fits &= put_scale(rows[c].m[at / Codes::kPerScale], layout, m, column + c);
  }
  return fits;
}

// Whether the panel's types hold all of it.
bool pack_codes(const Sources& sources, uint32_t depth, const PanelLayout& layout, std::byte* panel, uint32_t column) {
  Codes rows[kTileColumns];
  bool fits = true;
  for (uint32_t first = 0; first < depth; first += kTileDepth) {
    const uint32_t count = std::min(kTileDepth, depth - first);
    for (uint32_t c = 0; c < kTileColumns; ++c) read_column(sources[c], first, count, rows[c]);
    for (uint32_t at = 0; at < count; at += layout.block_values, panel += layout.block_bytes())
      fits &= put_block(rows, at, layout, panel, column);
  }
  return fits;
}

}  // namespace

Weight CpuBackend::pack(std::span<const FileTensor> tensors, PackOrder order, std::span<std::byte> into) {
  Weight weight = packed_shape(tensors, order);
  CHECK(into.size() == weight.bytes);
  weight.data = into.data();
  const auto format = static_cast<PanelFormat>(weight.format);
  const PanelLayout layout = layout_of(format);
  std::atomic<bool> fits = true;
  const FlushDenormals flush;
  pool_.parallel_for(panel_count(weight.rows, order), [&](uint32_t index, uint32_t) {
    std::byte* const panel = into.data() + index * layout.panel_bytes(weight.cols);
    for (uint32_t column = 0; column < kPanelColumns; column += kTileColumns) {
      Sources sources;
      for (uint32_t c = 0; c < kTileColumns; ++c) sources[c] = source_of(tensors, order, index, column + c);
      if (format == PanelFormat::kBf16) {
        pack_pairs(sources, weight.cols, reinterpret_cast<uint32_t*>(panel) + column);
      } else if (!pack_codes(sources, weight.cols, layout, panel, column)) {
        fits = false;
      }
    }
  });
  if (!fits)
    throw SetupError(
        fmt::format("tensor {}{}: a block's scale is so large that its least value is beyond -{}, which is "
                    "not supported",
                    tensors[0].name, tensors.size() > 1 ? " or one packed with it" : "", kF16Max));
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
