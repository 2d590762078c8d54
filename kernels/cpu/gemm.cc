#include <algorithm>

#include "common/check.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/packed_weight.h"
#include "kernels/cpu/processor.h"

namespace spillway::cpu {
namespace {

// About so many bytes of panels a thread takes one after the other: what it fetches ahead is then its own.
constexpr size_t kRunBytes = size_t{128} << 10;
constexpr uint32_t kTaskBlocks = 1024;  // that one task prepares
constexpr uint32_t kBlockValues = 32;   // of `a` in one
static_assert(ActivationBlock::kValues == kBlockValues && PairBlock::kValues == kBlockValues);

}  // namespace

void CpuBackend::gemm(const GemmArgs& args) {
  CHECK(args.weight != nullptr);
  CHECK((args.weight->order == PackOrder::kGateUp) == (args.epilogue == Epilogue::kSwiGlu));
  CHECK(args.a.type == DataType::kBf16 && args.a.shape[1] == args.weight->cols);
  const bool swiglu = args.epilogue == Epilogue::kSwiGlu;
  const uint32_t rows = args.a.shape[0], depth = args.weight->cols;
  CHECK(args.out.type == (swiglu ? DataType::kBf16 : DataType::kF32));
  CHECK(args.out.shape[0] == rows && args.out.shape[1] == (swiglu ? args.weight->rows / 2 : args.weight->rows));
  const FlushDenormals flush;
  if (takes_blocks(static_cast<PanelFormat>(args.weight->format))) {
    const uint32_t row_blocks = depth / kBlockValues;
    const size_t row_bytes = row_blocks * codes_.block_bytes;
    CHECK(depth % kBlockValues == 0 && row_bytes <= prepared_bytes_);
    auto rows_at_once = static_cast<uint32_t>(prepared_bytes_ / row_bytes);
    if (rows_at_once > kPanelRowsMax) rows_at_once -= rows_at_once % kPanelRowsMax;  // no pass for a few rows
    for (uint32_t row = 0; row < rows; row += rows_at_once) {
      const uint32_t count = std::min(rows_at_once, rows - row);
      prepare(args.a.as<uint16_t>() + size_t{row} * depth, count * row_blocks);
      multiply(args, row, count);
    }
  } else {
    multiply(args, 0, rows);
  }
  counters_.gemm_flops += 2ull * rows * args.weight->rows * depth;
  counters_.weight_bytes += args.weight->bytes;
  if (swiglu) counters_.mlp_rows += rows;
}

void CpuBackend::prepare(const uint16_t* values, uint32_t blocks) {
  pool_.parallel_for((blocks + kTaskBlocks - 1) / kTaskBlocks, [&](uint32_t task, uint32_t) {
    const size_t first = size_t{task} * kTaskBlocks;
    codes_.prepare(values + first * kBlockValues, std::min<size_t>(kTaskBlocks, blocks - first),
                   prepared_.get() + first * codes_.block_bytes);
  });
}

// Rows [row_first, row_first + rows) of the product; from their blocks, where it takes such.
void CpuBackend::multiply(const GemmArgs& args, uint32_t row_first, uint32_t rows) {
  const auto format = static_cast<PanelFormat>(args.weight->format);
  const bool swiglu = args.epilogue == Epilogue::kSwiGlu;
  const uint32_t depth = args.weight->cols, width = args.out.shape[1];
  const uint32_t panel_width = swiglu ? kPanelColumns / 2 : kPanelColumns;
  const uint32_t panels = (width + panel_width - 1) / panel_width;
  const uint32_t row_tasks = (rows + kPanelRowsMax - 1) / kPanelRowsMax;
  const size_t panel_bytes = layout_of(format).panel_bytes(depth);
  const size_t out_element = swiglu ? sizeof(uint16_t) : sizeof(float);
  const auto gemm_panel = format == PanelFormat::kBf16 ? isa_.gemm_panel : codes_.gemm_panel;
  const auto multiply_panel = [&](uint32_t panel, uint32_t row, uint32_t thread) {
    GemmPanel work;
    work.a = args.a.as<uint16_t>() + size_t{row_first + row} * depth;
    work.a_stride = depth;
    if (takes_blocks(format))
      work.blocks = prepared_.get() + size_t{row} * (depth / kBlockValues) * codes_.block_bytes;
    work.rows = std::min(kPanelRowsMax, rows - row);
    work.depth = depth;
    work.panel = args.weight->data + panel * panel_bytes;
    work.format = format;
    work.columns = std::min(panel_width, width - panel * panel_width);
    work.epilogue = swiglu                                    ? PanelEpilogue::kSwiGlu
                    : args.epilogue == Epilogue::kAddResidual ? PanelEpilogue::kAdd
                                                              : PanelEpilogue::kStore;
    work.out = args.out.data + (size_t{row_first + row} * width + size_t{panel} * panel_width) * out_element;
    work.out_stride = width;
    work.scratch = panel_scratch_[thread].bytes;
    gemm_panel(work);
  };
  // Never a split of K. With rows for several tasks neighbours in time share a panel; else there are as many runs of
  // panels for each thread, which differ in length by one at most.
  const uint32_t threads = pool_.used_threads();
  const auto runs_wanted = static_cast<uint32_t>((panels * panel_bytes + kRunBytes - 1) / kRunBytes);
  const uint32_t runs = row_tasks > 1 ? panels : std::min(panels, (runs_wanted + threads - 1) / threads * threads);
  const auto first_of = [&](uint32_t run) { return static_cast<uint32_t>(uint64_t{panels} * run / runs); };
  pool_.parallel_for(runs * row_tasks, [&](uint32_t task, uint32_t thread) {
    const uint32_t run = task / row_tasks, row = task % row_tasks * kPanelRowsMax;
    for (uint32_t panel = first_of(run); panel < first_of(run + 1); ++panel) multiply_panel(panel, row, thread);
  });
}

}  // namespace spillway::cpu
