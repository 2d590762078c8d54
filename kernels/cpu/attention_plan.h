#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/attention_tile.h"
#include "kernels/cpu/kv_tile.h"

namespace spillway::cpu {

static_assert(kHeadsPerKvHeadMax <= kTileVectorsMax);
inline constexpr uint32_t kTileVectors = 48;  // aimed at: K and V of a fold stay in L1, queries and sums in L2

// Where one kv head's keys and values of a fold lie: bf16, or codes and their scales.
struct KeyPlace {
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  const float* k_scales = nullptr;
  const float* v_scales = nullptr;
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
  template <class Body>
  void for_each_tile(const Body& body) const {
    for (const TokenSpan& span : args.spans) {
      for (uint32_t first = 0; first < span.row_count; first += tile_rows) {
        for (uint32_t kv_head = 0; kv_head < kv_heads; ++kv_head)
          body(Tile{&span, first, std::min(tile_rows, span.row_count - first), kv_head});
      }
    }
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
    KeyPlace place{
        .k = part.data() + kv_tile.k_index(tile.kv_head, token, 0) * layout.value_bytes(),
        .v = part.data() + layout.k_bytes() + kv_tile.v_index(tile.kv_head, token, 0) * layout.value_bytes()};
    if (layout.dtype == KvDtype::kInt8) {
      const std::byte* const scales = part.data() + 2 * layout.k_bytes();
      const size_t index = kv_tile.scale_index(tile.kv_head, token);
      place.k_scales = reinterpret_cast<const float*>(scales) + index;
      place.v_scales = reinterpret_cast<const float*>(scales + layout.k_scale_bytes()) + index;
    }
    return place;
  }
  // Index of q or out of the tile's row, at its kv head's first query head; the group's heads follow.
  size_t row_index(const Tile& tile, uint32_t row) const {
    return ((size_t{tile.span->row_first} + tile.row_first + row) * heads + size_t{tile.kv_head} * group) * head_dim;
  }
};

}  // namespace spillway::cpu
