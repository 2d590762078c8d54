#include "model/forward_buffers.h"

#include "common/check.h"
#include "kernels/rope_table.h"

namespace spillway {
namespace {

constexpr size_t kAlignBytes = 64;  // one cache line, one vector register

size_t element_bytes(DataType type) {
  switch (type) {
    case DataType::kBf16: return 2;
    case DataType::kF32:
    case DataType::kU32: return 4;
  }
  CHECK(false);
}

// Places one tensor after the other; without memory it only counts.
class Layout {
 public:
  explicit Layout(std::byte* base) : base_(base) {}
  TensorView place(DataType type, uint32_t rows, uint32_t columns, uint32_t depth = 1) {
    const TensorView view{
        .data = base_ == nullptr ? nullptr : base_ + used_, .type = type, .shape = {rows, columns, depth}};
    const size_t bytes = size_t{rows} * columns * depth * element_bytes(type);
    used_ += (bytes + kAlignBytes - 1) / kAlignBytes * kAlignBytes;
    return view;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

}  // namespace

ForwardBuffers::ForwardBuffers(std::byte* base, const ModelConfig& config, const ForwardLimits& limits) {
  Layout layout(base);
  const uint32_t rows = limits.rows_max, logit_rows = limits.logit_rows_max;
  residual = layout.place(DataType::kF32, rows, config.hidden);
  normed = layout.place(DataType::kBf16, rows, config.hidden);
  qkv = layout.place(DataType::kF32, rows, config.qkv_features());
  q = layout.place(DataType::kBf16, rows, config.heads, config.head_dim);
  attended = layout.place(DataType::kBf16, rows, config.heads, config.head_dim);
  mlp = layout.place(DataType::kBf16, rows, config.feed_forward);
  final_normed = layout.place(DataType::kBf16, logit_rows, config.hidden);
  logits = layout.place(DataType::kF32, logit_rows, config.vocab);
  rope_table = layout.place(DataType::kF32, limits.positions_max, config.head_dim);
  bytes = layout.used();
}

ForwardBuffers ForwardBuffers::allocate(Backend& backend, const ModelConfig& config, const ForwardLimits& limits) {
  const size_t bytes = ForwardBuffers(nullptr, config, limits).bytes;
  const ForwardBuffers buffers(backend.allocate(bytes).data(), config, limits);
  fill_rope_table(config.rope, config.head_dim,
                  {buffers.rope_table.as<float>(), size_t{limits.positions_max} * config.head_dim});
  return buffers;
}

TensorView row_range(const TensorView& view, uint32_t first, uint32_t count) {
  CHECK(uint64_t{first} + count <= view.shape[0]);
  TensorView rows = view;
  rows.data += size_t{first} * view.shape[1] * view.shape[2] * element_bytes(view.type);
  rows.shape[0] = count;
  return rows;
}

}  // namespace spillway
