#include <algorithm>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/packed_weight.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kRowsPerTask = 96;  // rows of one task: its part of `a` stays in L2 beside the panel

}  // namespace

void gemm_panel_scalar(const GemmPanel& args) {
  for (uint32_t m = 0; m < args.rows; ++m) {
    const uint16_t* const a = args.a + m * args.a_stride;
    float sums[kPanelColumns] = {};
    for (uint32_t k = 0; k < args.depth; ++k) {
      const float value = f32_from_bf16(a[k]);
      const uint16_t* const b = args.panel + size_t{k / 2} * kPanelColumns * 2 + k % 2;
      for (uint32_t column = 0; column < kPanelColumns; ++column) sums[column] += value * f32_from_bf16(b[column * 2]);
    }
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
  const uint16_t* const packed = reinterpret_cast<const uint16_t*>(args.weight->data);
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
  const uint32_t row_tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  const size_t out_element = swiglu ? sizeof(uint16_t) : sizeof(float);
  // Panel by panel: neighbours in time share a panel. Never a split of K.
  pool_.parallel_for(panels * row_tasks, [&](uint32_t task, uint32_t) {
    const uint32_t panel = task / row_tasks, row = task % row_tasks * kRowsPerTask;
    GemmPanel work;
    work.a = args.a.as<uint16_t>() + size_t{row} * depth;
    work.a_stride = depth;
    work.rows = std::min(kRowsPerTask, rows - row);
    work.depth = depth;
    work.panel = packed + panel * panel_elements(depth);
    work.columns = std::min(panel_width, width - panel * panel_width);
    work.epilogue = swiglu                                    ? PanelEpilogue::kSwiGlu
                    : args.epilogue == Epilogue::kAddResidual ? PanelEpilogue::kAdd
                                                              : PanelEpilogue::kStore;
    work.out = args.out.data + (size_t{row} * width + size_t{panel} * panel_width) * out_element;
    work.out_stride = width;
    isa_.gemm_panel(work);
  });
  counters_.gemm_flops += 2ull * rows * args.weight->rows * depth;
  counters_.weight_bytes += args.weight->bytes;
  if (swiglu) counters_.mlp_rows += rows;
}

}  // namespace spillway::cpu
