#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/kv_tile.h"

namespace spillway::cpu {
namespace {

// One row's work: everything but the place of its K and V.
struct RowShape {
  uint32_t heads, kv_heads, head_dim;
};

float rotated(const float* pair, const float* cos_sin, uint32_t half) {
  return half == 0 ? pair[0] * cos_sin[0] - pair[1] * cos_sin[1] : pair[0] * cos_sin[1] + pair[1] * cos_sin[0];
}

void rotate_q(const RowShape& shape, const float* q, const float* angles, uint16_t* out) {
  for (uint32_t head = 0; head < shape.heads; ++head, q += shape.head_dim, out += shape.head_dim) {
    for (uint32_t dim = 0; dim < shape.head_dim; dim += 2) {
      out[dim] = bf16_from_f32(rotated(q + dim, angles + dim, 0));
      out[dim + 1] = bf16_from_f32(rotated(q + dim, angles + dim, 1));
    }
  }
}

void append_kv(const RowShape& shape, const float* k, const float* v, const float* angles, const KvTile& tile,
               uint32_t token, uint16_t* k_out, uint16_t* v_out) {
  for (uint32_t head = 0; head < shape.kv_heads; ++head, k += shape.head_dim, v += shape.head_dim) {
    for (uint32_t dim = 0; dim < shape.head_dim; dim += 2) {
      uint16_t* pair = k_out + tile.k_index(head, token, dim);
      pair[0] = bf16_from_f32(rotated(k + dim, angles + dim, 0));
      pair[1] = bf16_from_f32(rotated(k + dim, angles + dim, 1));
    }
    uint16_t* row = v_out + tile.v_index(head, token, 0);
    for (uint32_t dim = 0; dim < shape.head_dim; ++dim) row[size_t{dim} * 2] = bf16_from_f32(v[dim]);
  }
}

}  // namespace

void CpuBackend::rope_append(const RopeAppendArgs& args) {
  const KvLayout& layout = args.kv.layout;
  const RowShape shape{args.heads, layout.kv_heads, layout.head_dim};
  const uint32_t width = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  CHECK(shape.head_dim % 2 == 0 && layout.block_tokens % kTileTokens == 0);
  CHECK(args.qkv.type == DataType::kF32 && args.qkv.shape[1] == width && args.rope_table.shape[1] == shape.head_dim);
  CHECK(args.q_out.type == DataType::kBf16 && args.q_out.shape[1] == shape.heads);
  const FlushDenormals flush;
  const KvTile tile{layout.block_tokens, layout.head_dim};
  for (const TokenSpan& span : args.spans) {
    CHECK(span.row_first + span.row_count <= args.qkv.shape[0] &&
          span.row_first + span.row_count <= args.q_out.shape[0]);
    CHECK(span.position_first + span.row_count <= args.rope_table.shape[0]);
    CHECK(layout.blocks_for(span.position_first + span.row_count) <= args.block_table.shape[1]);
    CHECK(span.block_table_row < args.block_table.shape[0]);
    counters_.q_rows += span.row_count;
    counters_.kv_rows += span.row_count;
    const uint32_t* blocks = args.block_table.as<uint32_t>() + size_t{span.block_table_row} * args.block_table.shape[1];
    const uint32_t end = span.position_first + span.row_count;
    const uint32_t block_first = span.position_first / layout.block_tokens;
    // A block's rows stay on one thread: zeroing it comes before its first row.
    pool_.parallel_for(span.row_count == 0 ? 0 : layout.blocks_for(end) - block_first, [&](uint32_t index, uint32_t) {
      const uint32_t start = (block_first + index) * layout.block_tokens;
      const std::span<std::byte> part = args.kv.parts(SlotId{blocks[block_first + index]}, {args.layer, 1});
      if (span.position_first <= start) std::memset(part.data(), 0, part.size());
      uint16_t* k_out = reinterpret_cast<uint16_t*>(part.data());
      uint16_t* v_out = reinterpret_cast<uint16_t*>(part.data() + layout.k_bytes());
      const uint32_t last = std::min(end, start + layout.block_tokens);
      for (uint32_t position = std::max(start, span.position_first); position < last; ++position) {
        const size_t row = span.row_first + (position - span.position_first);
        const float* q = args.qkv.as<float>() + row * width;
        const float* k = q + size_t{shape.heads} * shape.head_dim;
        const float* angles = args.rope_table.as<float>() + size_t{position} * shape.head_dim;
        rotate_q(shape, q, angles, args.q_out.as<uint16_t>() + row * shape.heads * shape.head_dim);
        append_kv(shape, k, k + size_t{shape.kv_heads} * shape.head_dim, angles, tile, position - start, k_out, v_out);
      }
    });
  }
}

}  // namespace spillway::cpu
