#include <algorithm>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/stored_blocks.h"

namespace spillway::cpu {
namespace {

struct ScalarScratch {
  float values[32][kPanelColumns];  // of one block
  float sums[kPanelRowsMax][kPanelColumns];
};
static_assert(sizeof(ScalarScratch) <= kPanelScratchBytes);

uint32_t code_of(uint32_t word, uint32_t value, uint32_t bits) {
  return bits == 8 ? word >> 8 * value & 255 : word >> (value % 4 * 8 + value / 4 * 4) & 15;
}

float scale_of(const std::byte* scales, uint32_t column, uint32_t bytes) {
  if (bytes == sizeof(uint16_t)) return f32_from_f16(reinterpret_cast<const uint16_t*>(scales)[column]);
  return reinterpret_cast<const float*>(scales)[column];
}

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
  for (uint32_t m = 0; m < args.rows; ++m) {
    const float(&sums)[kPanelColumns] = all_sums[m];
    float* const out = static_cast<float*>(args.out) + m * args.out_stride;
    switch (args.epilogue) {
      case PanelEpilogue::kStore: std::copy_n(sums, args.columns, out); break;
      case PanelEpilogue::kAdd:
        for (uint32_t column = 0; column < args.columns; ++column) out[column] += sums[column];
        break;
      case PanelEpilogue::kSwiGlu: {
        uint16_t* const narrow = static_cast<uint16_t*>(args.out) + m * args.out_stride;
        for (uint32_t feature = 0; feature < args.columns; ++feature) {
          const uint32_t column = feature / kGateUpGroup * 2 * kGateUpGroup + feature % kGateUpGroup;
          const float gate = sums[column];
          narrow[feature] = bf16_from_f32(gate / (1.0f + exp2_scalar(-gate * kLog2E)) * sums[column + kGateUpGroup]);
        }
        break;
      }
    }
  }
}

void CpuBackend::gemm(const GemmArgs& args) {
  CHECK(args.weight != nullptr);
  const auto format = static_cast<PanelFormat>(args.weight->format);
  CHECK((args.weight->order == PackOrder::kGateUp) == (args.epilogue == Epilogue::kSwiGlu));
  CHECK(args.a.type == DataType::kBf16 && args.a.shape[1] == args.weight->cols);
  const bool swiglu = args.epilogue == Epilogue::kSwiGlu;
  const uint32_t rows = args.a.shape[0], depth = args.weight->cols;
  const uint32_t width = swiglu ? args.weight->rows / 2 : args.weight->rows;
  CHECK(args.out.type == (swiglu ? DataType::kBf16 : DataType::kF32));
  CHECK(args.out.shape[0] == rows && args.out.shape[1] == width);
  const FlushDenormals flush;
  const uint32_t panel_width = swiglu ? kPanelColumns / 2 : kPanelColumns;
  const uint32_t panels = (width + panel_width - 1) / panel_width;
  const uint32_t row_tasks = (rows + kPanelRowsMax - 1) / kPanelRowsMax;
  const size_t panel_bytes = layout_of(format).panel_bytes(depth);
  const size_t out_element = swiglu ? sizeof(uint16_t) : sizeof(float);
  // Panel by panel: neighbours in time share a panel. Never a split of K.
  pool_.parallel_for(panels * row_tasks, [&](uint32_t task, uint32_t thread) {
    const uint32_t panel = task / row_tasks, row = task % row_tasks * kPanelRowsMax;
    GemmPanel work;
    work.a = args.a.as<uint16_t>() + size_t{row} * depth;
    work.a_stride = depth;
    work.rows = std::min(kPanelRowsMax, rows - row);
    work.depth = depth;
    work.panel = args.weight->data + panel * panel_bytes;
    work.format = format;
    work.columns = std::min(panel_width, width - panel * panel_width);
    work.epilogue = swiglu                                    ? PanelEpilogue::kSwiGlu
                    : args.epilogue == Epilogue::kAddResidual ? PanelEpilogue::kAdd
                                                              : PanelEpilogue::kStore;
    work.out = args.out.data + (size_t{row} * width + size_t{panel} * panel_width) * out_element;
    work.out_stride = width;
    work.scratch = panel_scratch_[thread].bytes;
    isa_.gemm_panel(work);
  });
  counters_.gemm_flops += 2ull * rows * args.weight->rows * depth;
  counters_.weight_bytes += args.weight->bytes;
  if (swiglu) counters_.mlp_rows += rows;
}

}  // namespace spillway::cpu
