#include <algorithm>
#include <cstring>
#include <limits>
#include <vector>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/cpu_backend.h"
#include "kernels/cpu/exp2.h"
#include "kernels/cpu/kv_tile.h"

namespace spillway::cpu {
namespace {

static_assert(kHeadsPerKvHeadMax <= kTileVectorsMax);
constexpr float kNoScore = -std::numeric_limits<float>::infinity();
constexpr uint32_t kTileVectors = 48;  // aimed at: K and V of a fold stay in L1, queries and sums of a tile in L2

// Rows of one span that are computed together, for one kv head.
struct Tile {
  const TokenSpan* span = nullptr;
  uint32_t row_first = 0, rows = 0;  // within the span
  uint32_t kv_head = 0;
};

// Where one kv head's keys and values of a fold lie.
struct KeyPlace {
  const uint16_t* k = nullptr;
  const uint16_t* v = nullptr;
};

// The call's shape, and the tiles in it: span after span, rows ascending, kv heads of the same rows adjacent.
struct Plan {
  const AttentionArgs& args;
  uint32_t heads, kv_heads, group, head_dim, fold_tokens, tile_rows;

  explicit Plan(const AttentionArgs& call)
      : args(call),
        heads(call.q.shape[1]),
        kv_heads(call.kv.layout.kv_heads),
        group(heads / kv_heads),
        head_dim(call.q.shape[2]),
        fold_tokens(std::min<uint32_t>(call.kv.layout.block_tokens, kFoldTokensMax)),
        tile_rows(std::max(1u, kTileVectors / std::max(1u, group))) {}

  uint32_t tiles_of(const TokenSpan& span) const { return (span.row_count + tile_rows - 1) / tile_rows; }
  uint32_t tile_count() const {
    uint32_t count = 0;
    for (const TokenSpan& span : args.spans) count += tiles_of(span);
    return count * kv_heads;
  }
  Tile tile(uint32_t index) const {
    uint32_t rows_index = index / kv_heads;
    const TokenSpan* span = args.spans.data();
    while (rows_index >= tiles_of(*span)) rows_index -= tiles_of(*span++);
    const uint32_t first = rows_index * tile_rows;
    return {span, first, std::min(tile_rows, span->row_count - first), index % kv_heads};
  }
  uint32_t position_last(const Tile& tile) const { return tile.span->position_first + tile.row_first + tile.rows - 1; }
  uint32_t split_count(const Tile& tile) const { return position_last(tile) / kSplitTokens + 1; }
  KeyPlace key_place(const Tile& tile, uint32_t key) const {
    const KvLayout& layout = args.kv.layout;
    const KvTile kv_tile{layout.block_tokens, layout.head_dim};
    const uint32_t* blocks =
        args.block_table.as<uint32_t>() + size_t{tile.span->block_table_row} * args.block_table.shape[1];
    const auto part = args.kv.parts(SlotId{blocks[key / layout.block_tokens]}, {args.layer, 1});
    const uint32_t token = key % layout.block_tokens;
    return {
        reinterpret_cast<const uint16_t*>(part.data()) + kv_tile.k_index(tile.kv_head, token, 0),
        reinterpret_cast<const uint16_t*>(part.data() + layout.k_bytes()) + kv_tile.v_index(tile.kv_head, token, 0)};
  }
  // Index of q or out of the tile's row, at its kv head's first query head; the group's heads follow.
  size_t row_index(const Tile& tile, uint32_t row) const {
    return ((size_t{tile.span->row_first} + tile.row_first + row) * heads + size_t{tile.kv_head} * group) * head_dim;
  }
};

// Blocks fold in order from the empty state: kSplitTokens keys, aligned to absolute position. Needs scratch.q.
void compute_split(const Plan& plan, const Tile& tile, uint32_t split, AttentionScratch& scratch, SplitState state,
                   void (*fold)(const AttentionFold&)) {
  const uint32_t vectors = tile.rows * plan.group;
  std::fill_n(state.m, vectors, kNoScore);
  std::fill_n(state.o, vectors * plan.head_dim, 0.0f);
  std::fill_n(scratch.l_lanes, vectors * kLanes, 0.0f);
  const uint32_t position_first = tile.span->position_first + tile.row_first;
  const uint32_t end = std::min((split + 1) * kSplitTokens, plan.position_last(tile) + 1);
  for (uint32_t key = split * kSplitTokens; key < end; key += plan.fold_tokens) {
    for (uint32_t v = 0; v < vectors; ++v) {
      const uint32_t keys_seen = position_first + v / plan.group + 1;
      scratch.valid[v] = static_cast<uint8_t>(keys_seen <= key ? 0 : std::min(keys_seen - key, plan.fold_tokens));
    }
    const KeyPlace place = plan.key_place(tile, key);
    const uint32_t next = key + plan.fold_tokens;
    const KeyPlace next_place = next < end ? plan.key_place(tile, next) : place;
    fold({.q = scratch.q,
          .vectors = vectors,
          .head_dim = plan.head_dim,
          .tokens = plan.fold_tokens,
          .k = place.k,
          .v = place.v,
          .next_k = next_place.k,
          .valid = scratch.valid,
          .scale_log2 = plan.args.scale * kLog2E,
          .m = state.m,
          .l = scratch.l_lanes,
          .o = state.o});
  }
  for (uint32_t v = 0; v < vectors; ++v) {
    float* lanes = scratch.l_lanes + size_t{v} * kLanes;
    for (uint32_t width = kLanes / 2; width > 0; width /= 2) {
      for (uint32_t lane = 0; lane < width; ++lane) lanes[lane] += lanes[lane + width];
    }
    state.l[v] = lanes[0];
  }
}

// total := total merged with the next split. An empty part changes nothing.
void merge(SplitState total, SplitState part, uint32_t vectors, uint32_t head_dim) {
  for (uint32_t v = 0; v < vectors; ++v, total.o += head_dim, part.o += head_dim) {
    if (part.m[v] == kNoScore && part.l[v] == 0.0f) continue;
    const float m = std::max(total.m[v], part.m[v]);
    const float a = exp2_scalar(total.m[v] - m), b = exp2_scalar(part.m[v] - m);
    total.m[v] = m;
    total.l[v] = total.l[v] * a + part.l[v] * b;
    for (uint32_t dim = 0; dim < head_dim; ++dim) total.o[dim] = total.o[dim] * a + part.o[dim] * b;
  }
}

void load_q(const Plan& plan, const Tile& tile, uint16_t* q) {
  const size_t count = size_t{plan.group} * plan.head_dim;
  for (uint32_t row = 0; row < tile.rows; ++row, q += count) {
    std::memcpy(q, plan.args.q.as<uint16_t>() + plan.row_index(tile, row), count * sizeof(uint16_t));
  }
}

void store_out(const Plan& plan, const Tile& tile, SplitState total) {
  for (uint32_t v = 0; v < tile.rows * plan.group; ++v, total.o += plan.head_dim) {
    uint16_t* out =
        plan.args.out.as<uint16_t>() + plan.row_index(tile, v / plan.group) + size_t{v % plan.group} * plan.head_dim;
    for (uint32_t dim = 0; dim < plan.head_dim; ++dim) out[dim] = bf16_from_f32(total.o[dim] / total.l[v]);
  }
}

void check_shapes(const AttentionArgs& args) {
  const KvLayout& layout = args.kv.layout;
  CHECK(args.q.type == DataType::kBf16 && args.out.type == DataType::kBf16 && args.q.shape == args.out.shape);
  CHECK(layout.kv_heads > 0 && args.q.shape[1] % layout.kv_heads == 0 &&
        args.q.shape[1] / layout.kv_heads <= kHeadsPerKvHeadMax);
  CHECK(args.q.shape[2] == layout.head_dim && layout.head_dim % 2 == 0 && layout.head_dim <= kHeadDimMax);
  CHECK(layout.block_tokens % kTileTokens == 0 && kSplitTokens % layout.block_tokens == 0);
  for (const TokenSpan& span : args.spans) {
    CHECK(span.row_count > 0 && span.row_first + span.row_count <= args.q.shape[0]);
    CHECK(span.block_table_row < args.block_table.shape[0]);
    CHECK(layout.blocks_for(span.position_first + span.row_count) <= args.block_table.shape[1]);
  }
}

void count_attention(const Plan& plan, OpCounters& counters) {
  for (const TokenSpan& span : plan.args.spans) {
    const uint64_t rows = span.row_count, end = uint64_t{span.position_first} + rows;
    const uint64_t keys = rows * span.position_first + rows * (rows + 1) / 2;
    counters.attention_flops += 4 * plan.head_dim * plan.heads * keys;
    counters.kv_bytes += end * plan.kv_heads * plan.head_dim * 2 * sizeof(uint16_t);
  }
}

}  // namespace

// Every sum is over ascending dims, or ascending keys, of plain products and sums; keys are the inner loop of the
// scores only so that compilers may use vectors.
void attention_fold_scalar(const AttentionFold& args) {
  const uint32_t head_dim = args.head_dim;
  const KvTile tile{args.tokens, head_dim};
  for (uint32_t v = 0; v < args.vectors; ++v) {
    const uint32_t valid = args.valid[v];
    if (valid == 0) continue;
    const uint16_t* q = args.q + size_t{v} * head_dim;
    float* l = args.l + size_t{v} * kLanes;
    float* o = args.o + size_t{v} * head_dim;
    float scores[kFoldTokensMax] = {};
    for (uint32_t first = 0; first < valid; first += kTileTokens) {
      for (uint32_t dim = 0; dim < head_dim; ++dim) {
        const uint16_t* k = args.k + tile.k_index(0, first, dim);
        const float value = f32_from_bf16(q[dim]);
        for (uint32_t i = 0; i < kTileTokens; ++i) scores[first + i] += value * f32_from_bf16(k[size_t{i} * 2]);
      }
    }
    float m = args.m[v];
    for (uint32_t token = 0; token < valid; ++token) {
      scores[token] *= args.scale_log2;
      m = std::max(m, scores[token]);
    }
    const float alpha = exp2_scalar(args.m[v] - m);
    args.m[v] = m;
    for (uint32_t lane = 0; lane < kLanes; ++lane) l[lane] *= alpha;
    for (uint32_t dim = 0; dim < head_dim; ++dim) o[dim] *= alpha;
    for (uint32_t token = 0; token < valid; ++token) {
      const float p = exp2_scalar(scores[token] - m);
      l[token % kLanes] += p;
      const uint16_t* row = args.v + tile.v_index(0, token, 0);
      for (uint32_t dim = 0; dim < head_dim; ++dim) o[dim] += p * f32_from_bf16(row[size_t{dim} * 2]);
    }
  }
}

void CpuBackend::attention(const AttentionArgs& args) {
  check_shapes(args);
  const Plan plan(args);
  count_attention(plan, counters_);
  const FlushDenormals flush;
  const uint32_t tiles = plan.tile_count();
  pool_.parallel_for(tiles, [&](uint32_t index, uint32_t thread) {
    const Tile tile = plan.tile(tiles - 1 - index);  // late positions see most keys: start them first
    AttentionScratch& scratch = scratch_[thread];
    const uint32_t vectors = tile.rows * plan.group;
    load_q(plan, tile, scratch.q);
    compute_split(plan, tile, 0, scratch, scratch.total(), isa_.attention_fold);
    for (uint32_t split = 1; split < plan.split_count(tile); ++split) {
      compute_split(plan, tile, split, scratch, scratch.part(), isa_.attention_fold);
      merge(scratch.total(), scratch.part(), vectors, plan.head_dim);
    }
    store_out(plan, tile, scratch.total());
  });
}

}  // namespace spillway::cpu
