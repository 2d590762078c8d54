#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/kv_tile.h"
#include "kernels/cpu/processor.h"
#include "kernels/cpu/rms_scale.h"

namespace spillway::cpu {
namespace {

// One row's work: everything but the place of its K and V.
struct RowShape {
  uint32_t heads, kv_heads, head_dim;
};

// What the model adds to its QKV product; null where it has none.
struct HeadFinish {
  const float* bias = nullptr;  // of the head at hand
  const float* norm = nullptr;
  float epsilon = 0;
};

// The head with bias and norm: in `buffer`, or where it lies when the model has neither.
const float* finished(const float* head, const HeadFinish& finish, uint32_t head_dim, float* buffer) {
  if (finish.bias == nullptr && finish.norm == nullptr) return head;
  if (finish.bias == nullptr) {
    std::copy_n(head, head_dim, buffer);
  } else {
    for (uint32_t dim = 0; dim < head_dim; ++dim) buffer[dim] = head[dim] + finish.bias[dim];
  }
  if (finish.norm != nullptr) {
    const float scale = rms_scale(buffer, head_dim, finish.epsilon);
    for (uint32_t dim = 0; dim < head_dim; ++dim) buffer[dim] = buffer[dim] * scale * finish.norm[dim];
  }
  return buffer;
}

float rotated(const float* pair, const float* cos_sin, uint32_t half) {
  return half == 0 ? pair[0] * cos_sin[0] - pair[1] * cos_sin[1] : pair[0] * cos_sin[1] + pair[1] * cos_sin[0];
}

// `bias` of finishes below: of the first head.
void rotate_q(const RowShape& shape, const float* q, HeadFinish finish, const float* angles, uint16_t* out) {
  float buffer[kHeadDimMax];
  for (uint32_t head = 0; head < shape.heads; ++head, q += shape.head_dim, out += shape.head_dim) {
    const float* values = finished(q, finish, shape.head_dim, buffer);
    for (uint32_t dim = 0; dim < shape.head_dim; dim += 2) {
      out[dim] = bf16_from_f32(rotated(values + dim, angles + dim, 0));
      out[dim + 1] = bf16_from_f32(rotated(values + dim, angles + dim, 1));
    }
    if (finish.bias != nullptr) finish.bias += shape.head_dim;
  }
}

// Where a row of the batch goes: one token of an open block's part.
struct TokenPlace {
  const KvLayout& layout;
  std::byte* part;
  uint32_t token;
};

// max |x| / 127, which is 0 where it would be denormal too; NaN where a value is not finite, so that all that reads the
// row becomes NaN. Values are compared as bits: NaN above infinity above all others.
float row_scale(const float* values, uint32_t count) {
  constexpr uint32_t kMagnitude = 0x7fffffff, kInfinity = 0x7f800000;
  uint32_t highest = 0;
  for (uint32_t i = 0; i < count; ++i) highest = std::max(highest, std::bit_cast<uint32_t>(values[i]) & kMagnitude);
  return highest < kInfinity ? std::bit_cast<float>(highest) / 127.0f : std::numeric_limits<float>::quiet_NaN();
}

// value / scale, to nearest even: the sum's last bits count ones. 0 where the scale is 0 or NaN.
int8_t row_code(float value, float scale) {
  constexpr float kOnes = 0x1.8p23f;
  return scale > 0 ? static_cast<int8_t>(std::bit_cast<uint32_t>(value / scale + kOnes)) : int8_t{0};
}

// One head's K or V as the layout has it: value `dim` at element index(dim) of `out`, for int8 with scales[scale].
template <class Index>
void store_head(const KvLayout& layout, const float* values, const Index& index, std::byte* out, float* scales,
                size_t scale) {
  switch (layout.dtype) {
    case KvDtype::kBf16:
      for (uint32_t dim = 0; dim < layout.head_dim; ++dim)
        reinterpret_cast<uint16_t*>(out)[index(dim)] = bf16_from_f32(values[dim]);
      return;
    case KvDtype::kInt8:
      scales[scale] = row_scale(values, layout.head_dim);
      for (uint32_t dim = 0; dim < layout.head_dim; ++dim)
        reinterpret_cast<int8_t*>(out)[index(dim)] = row_code(values[dim], scales[scale]);
  }
}

void append_k(const float* k, HeadFinish finish, const float* angles, const TokenPlace& place) {
  const KvLayout& layout = place.layout;
  const KvTile tile{layout.block_tokens, layout.head_dim};
  float* const scales = reinterpret_cast<float*>(place.part + 2 * layout.k_bytes());
  float buffer[kHeadDimMax], turned[kHeadDimMax];
  for (uint32_t head = 0; head < layout.kv_heads; ++head, k += layout.head_dim) {
    const float* values = finished(k, finish, layout.head_dim, buffer);
    for (uint32_t dim = 0; dim < layout.head_dim; dim += 2) {
      turned[dim] = rotated(values + dim, angles + dim, 0);
      turned[dim + 1] = rotated(values + dim, angles + dim, 1);
    }
    store_head(
        layout, turned, [&](uint32_t dim) { return tile.k_index(head, place.token, dim); }, place.part, scales,
        tile.scale_index(head, place.token));
    if (finish.bias != nullptr) finish.bias += layout.head_dim;
  }
}

void append_v(const float* v, HeadFinish finish, const TokenPlace& place) {
  const KvLayout& layout = place.layout;
  const KvTile tile{layout.block_tokens, layout.head_dim};
  float* const scales = reinterpret_cast<float*>(place.part + 2 * layout.k_bytes() + layout.k_scale_bytes());
  float buffer[kHeadDimMax];
  for (uint32_t head = 0; head < layout.kv_heads; ++head, v += layout.head_dim) {
    store_head(
        layout, finished(v, finish, layout.head_dim, buffer),
        [&](uint32_t dim) { return tile.v_index(head, place.token, dim); }, place.part + layout.k_bytes(), scales,
        tile.scale_index(head, place.token));
    if (finish.bias != nullptr) finish.bias += layout.head_dim;
  }
}

void check_finish(const RopeAppendArgs& args, uint32_t head_dim, uint32_t width) {
  CHECK(args.bias.data == nullptr || (args.bias.type == DataType::kF32 && args.bias.shape[0] == width));
  CHECK((args.q_norm.data == nullptr) == (args.k_norm.data == nullptr));
  for (const TensorView& norm : {args.q_norm, args.k_norm})
    CHECK(norm.data == nullptr || (norm.type == DataType::kF32 && norm.shape[0] == head_dim));
}

// A call's rows.
struct Append {
  const RopeAppendArgs& args;
  const KvLayout& layout;
  const RowShape shape;
  const size_t k_first, v_first, width;  // of a row of args.qkv
  HeadFinish q_finish, k_finish, v_finish;

  explicit Append(const RopeAppendArgs& call)
      : args(call),
        layout(call.kv.layout),
        shape{call.heads, layout.kv_heads, layout.head_dim},
        k_first(size_t{shape.heads} * shape.head_dim),
        v_first(k_first + size_t{shape.kv_heads} * shape.head_dim),
        width(v_first + size_t{shape.kv_heads} * shape.head_dim) {
    const float* const bias = call.bias.as<float>();
    q_finish = {bias, call.q_norm.as<float>(), call.norm_epsilon};
    k_finish = {bias == nullptr ? nullptr : bias + k_first, call.k_norm.as<float>(), call.norm_epsilon};
    v_finish = {.bias = bias == nullptr ? nullptr : bias + v_first};
  }

  void check() const {
    CHECK(shape.head_dim % 2 == 0 && shape.head_dim <= kHeadDimMax && layout.block_tokens % kTileTokens == 0);
    CHECK(args.qkv.type == DataType::kF32 && args.qkv.shape[1] == width && args.rope_table.shape[1] == shape.head_dim);
    CHECK(args.q_out.type == DataType::kBf16 && args.q_out.shape[1] == shape.heads);
    check_finish(args, shape.head_dim, static_cast<uint32_t>(width));
    for (const TokenSpan& span : args.spans) {
      const uint32_t row_end = span.row_first + span.row_count, end = span.position_first + span.row_count;
      CHECK(row_end <= args.qkv.shape[0] && row_end <= args.q_out.shape[0]);
      CHECK(end <= args.rope_table.shape[0] && layout.blocks_for(end) <= args.block_table.shape[1]);
      CHECK(span.block_table_row < args.block_table.shape[0]);
    }
  }

  uint32_t block_first(const TokenSpan& span) const { return span.position_first / layout.block_tokens; }
  uint32_t block_count(const TokenSpan& span) const {
    return span.row_count == 0 ? 0 : layout.blocks_for(span.position_first + span.row_count) - block_first(span);
  }

  // The rows of a span that lie in block `index` of it. They stay on one thread: zeroing comes before the first.
  void rows_of_block(const TokenSpan& span, uint32_t index) const {
    const uint32_t block = block_first(span) + index, start = block * layout.block_tokens;
    const uint32_t* slots = args.block_table.as<uint32_t>() + size_t{span.block_table_row} * args.block_table.shape[1];
    const std::span<std::byte> part = args.kv.parts(SlotId{slots[block]}, {args.layer, 1});
    if (span.position_first <= start) std::memset(part.data(), 0, part.size());
    const uint32_t end = std::min(span.position_first + span.row_count, start + layout.block_tokens);
    for (uint32_t position = std::max(start, span.position_first); position < end; ++position) {
      const size_t row = span.row_first + (position - span.position_first);
      const float* q = args.qkv.as<float>() + row * width;
      const float* angles = args.rope_table.as<float>() + size_t{position} * shape.head_dim;
      const TokenPlace place{layout, part.data(), position - start};
      rotate_q(shape, q, q_finish, angles, args.q_out.as<uint16_t>() + row * k_first);
      append_k(q + k_first, k_finish, angles, place);
      append_v(q + v_first, v_finish, place);
    }
  }
};

}  // namespace

// Spans of one block (decode rows) are shared out together, the blocks of a longer one by themselves.
void CpuBackend::rope_append(const RopeAppendArgs& args) {
  CHECK(args.kv.layout.dtype == precision_.kv);
  const Append append(args);
  append.check();
  const FlushDenormals flush;
  for (size_t first = 0, end = 0; first < args.spans.size(); first = end) {
    while (end < args.spans.size() && append.block_count(args.spans[end]) <= 1) ++end;
    if (end > first) {
      pool_.parallel_for(static_cast<uint32_t>(end - first), [&](uint32_t index, uint32_t) {
        if (append.block_count(args.spans[first + index]) == 1) append.rows_of_block(args.spans[first + index], 0);
      });
    } else {
      const TokenSpan& span = args.spans[end++];
      pool_.parallel_for(append.block_count(span),
                         [&](uint32_t index, uint32_t) { append.rows_of_block(span, index); });
    }
  }
  for (const TokenSpan& span : args.spans) {
    counters_.q_rows += span.row_count;
    counters_.kv_rows += span.row_count;
  }
}

}  // namespace spillway::cpu
