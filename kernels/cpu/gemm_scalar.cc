#include "kernels/cpu/gemm_scalar.h"

#include <algorithm>

#include "kernels/bf16.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/packed_weight.h"

namespace spillway::cpu {
namespace {

struct ScalarScratch {
  float values[32][kPanelColumns];  // of one block
  float sums[kPanelRowsMax][kPanelColumns];
};
static_assert(sizeof(ScalarScratch) <= kPanelScratchBytes);

// The product of code and d is exact, so two roundings are the one of a fused multiply-add.
void unpack_block(const PanelLayout& layout, const std::byte* block, float (*values)[kPanelColumns]) {
  const auto* const words = reinterpret_cast<const uint32_t*>(block);
  const std::byte* const d = block + size_t{layout.block_words()} * kPanelColumns * sizeof(uint32_t);
  const std::byte* const m = d + kPanelColumns * layout.scale_bytes;
  for (uint32_t k = 0; k < layout.block_values; ++k) {
    const uint32_t value = k % layout.word_values();
    for (uint32_t column = 0; column < kPanelColumns; ++column) {
      const uint32_t word = words[k / layout.word_values() * kPanelColumns + column];
      values[k][column] = layout.scale_bytes == 0 ? f32_from_bf16(static_cast<uint16_t>(word >> 16 * value))
                                                  : static_cast<float>(code_of(word, value, layout.value_bits)) *
                                                            scale_of(d, column, layout.scale_bytes) +
                                                        scale_of(m, column, layout.scale_bytes);
    }
  }
}

}  // namespace

void store_row_scalar(const GemmPanel& args, uint32_t row, const float (&sums)[kPanelColumns]) {
  float* const out = static_cast<float*>(args.out) + row * args.out_stride;
  switch (args.epilogue) {
    case PanelEpilogue::kStore: std::copy_n(sums, args.columns, out); break;
    case PanelEpilogue::kAdd:
      for (uint32_t column = 0; column < args.columns; ++column) out[column] += sums[column];
      break;
    case PanelEpilogue::kSwiGlu: {
      uint16_t* const narrow = static_cast<uint16_t*>(args.out) + row * args.out_stride;
      for (uint32_t feature = 0; feature < args.columns; ++feature) {
        const uint32_t column = feature / kGateUpGroup * 2 * kGateUpGroup + feature % kGateUpGroup;
        const float gate = sums[column];
        narrow[feature] = bf16_from_f32(gate / (1.0f + exp2_scalar(-gate * kLog2E)) * sums[column + kGateUpGroup]);
      }
      break;
    }
  }
}

void gemm_panel_scalar(const GemmPanel& args) {
  const PanelLayout layout = layout_of(args.format);
  auto& [values, all_sums] = *static_cast<ScalarScratch*>(args.scratch);
  std::fill_n(all_sums[0], args.rows * kPanelColumns, 0.0f);
  const auto* block = static_cast<const std::byte*>(args.panel);
  for (uint32_t first = 0; first < args.depth; first += layout.block_values, block += layout.block_bytes()) {
    unpack_block(layout, block, values);
    const uint32_t count = std::min(layout.block_values, args.depth - first);
    for (uint32_t m = 0; m < args.rows; ++m) {
      for (uint32_t k = 0; k < count; ++k) {
        const float a = f32_from_bf16(args.a[m * args.a_stride + first + k]);
        for (uint32_t column = 0; column < kPanelColumns; ++column) all_sums[m][column] += a * values[k][column];
      }
    }
  }
  for (uint32_t row = 0; row < args.rows; ++row) store_row_scalar(args, row, all_sums[row]);
}

}  // namespace spillway::cpu
