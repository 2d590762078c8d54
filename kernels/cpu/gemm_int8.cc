#include <algorithm>
#include <cmath>
#include <span>

#include "kernels/bf16.h"
#include "kernels/cpu/gemm_scalar.h"

namespace spillway::cpu {
namespace {

struct ScalarScratch {
  int32_t codes[ActivationBlock::kValues][kPanelColumns];  // of one block
  float d[kPanelColumns], m[kPanelColumns];
  float sums[kPanelRowsMax][kPanelColumns];
};
static_assert(sizeof(ScalarScratch) <= kPanelScratchBytes);

void unpack_block(const PanelLayout& layout, const std::byte* block, ScalarScratch& out) {
  const auto* const words = reinterpret_cast<const uint32_t*>(block);
  const std::byte* const d = block + size_t{layout.block_words()} * kPanelColumns * sizeof(uint32_t);
  const std::byte* const m = d + kPanelColumns * layout.scale_bytes;
  for (uint32_t column = 0; column < kPanelColumns; ++column) {
    for (uint32_t k = 0; k < layout.block_values; ++k) {
      const uint32_t word = words[k / layout.word_values() * kPanelColumns + column];
      out.codes[k][column] = static_cast<int32_t>(code_of(word, k % layout.word_values(), layout.value_bits));
    }
    out.d[column] = scale_of(d, column, layout.scale_bytes);
    out.m[column] = scale_of(m, column, layout.scale_bytes);
  }
}

// Adds a block's products with one row of `a`, whose codes of it these are.
void add_block(const ScalarScratch& block, std::span<const int8_t> codes, float sum, float scale,
               float (&sums)[kPanelColumns]) {
  int32_t dots[kPanelColumns] = {};
  for (size_t k = 0; k < codes.size(); ++k)
    for (uint32_t column = 0; column < kPanelColumns; ++column) dots[column] += block.codes[k][column] * codes[k];
  for (uint32_t column = 0; column < kPanelColumns; ++column) {
    const float d = block.d[column], least = std::fma(block.m[column], sum, -kDotOffset * d);
    const float product = std::fma(d, static_cast<float>(dots[column]) + kDotOffset, least);
    sums[column] = std::fma(scale, product, sums[column]);
  }
}

}  // namespace

void quantise_scalar(const uint16_t* values, size_t count, void* blocks) {
  auto* out = static_cast<ActivationBlock*>(blocks);
  for (; count > 0; --count, values += ActivationBlock::kValues, ++out) {
    uint32_t greatest = 0;
    for (uint32_t i = 0; i < ActivationBlock::kValues; ++i) greatest = std::max(greatest, values[i] & 0x7fffu);
    if (!is_quantisable(greatest)) {
      *out = unquantisable_block(greatest);
      continue;
    }
    const float value = f32_from_bf16(static_cast<uint16_t>(greatest)), inverse = 127 / value;
    int sums[2] = {};
    for (uint32_t i = 0; i < ActivationBlock::kValues; ++i) {
      const auto code = static_cast<int>(std::nearbyint(f32_from_bf16(values[i]) * inverse));
      out->codes[i] = static_cast<int8_t>(code);
      sums[i / 16] += code;
    }
    out->scale = value / 127;
    for (int half = 0; half < 2; ++half) out->half_sums[half] = static_cast<float>(sums[half]);
    out->sum = out->half_sums[0] + out->half_sums[1];
  }
}

void gemm_panel_int8_scalar(const GemmPanel& args) {
  const PanelLayout layout = layout_of(args.format);
  ScalarScratch& scratch = *static_cast<ScalarScratch*>(args.scratch);
  const auto* const rows = static_cast<const ActivationBlock*>(args.blocks);
  const size_t row_blocks = args.depth / ActivationBlock::kValues;
  std::fill_n(scratch.sums[0], args.rows * kPanelColumns, 0.0f);
  const auto* block = static_cast<const std::byte*>(args.panel);
  for (uint32_t first = 0; first < args.depth; first += layout.block_values, block += layout.block_bytes()) {
    unpack_block(layout, block, scratch);
    const uint32_t at = first % ActivationBlock::kValues;
    for (uint32_t row = 0; row < args.rows; ++row) {
      const ActivationBlock& x = rows[row * row_blocks + first / ActivationBlock::kValues];
      const float sum = layout.block_values == ActivationBlock::kValues ? x.sum : x.half_sums[at / 16];
      add_block(scratch, {x.codes + at, layout.block_values}, sum, x.scale, scratch.sums[row]);
    }
  }
  for (uint32_t row = 0; row < args.rows; ++row) store_row_scalar(args, row, scratch.sums[row]);
}

}  // namespace spillway::cpu
