#pragma once

#include <cstdint>
#include <span>

#include "kernels/tensor.h"
#include "kv/block.h"

namespace spillway {

// Rows of one sequence in a batch, ascending position.
struct TokenSpan {
  uint32_t row_first = 0, row_count = 0;  // rows of the batch
  uint32_t position_first = 0;            // absolute position of row_first
  uint32_t block_table_row = 0;           // this sequence's row of the block table
};

// Causal attention of token spans over paged KV (online softmax: Milakov & Gimelshein 2018, Dao 2023; splits:
// Flash-Decoding).
//   out[t,h] = sum_j softmax_j(scale * q[t,h].k[j,g]) v[j,g],   j <= position(t),  g = h / (heads / kv_heads)
// Reduction order is part of the contract: blocks fold in order inside a split of kSplitTokens, aligned to absolute
// position; every split starts from the empty state (m = -inf, l = 0, O = 0) to an unnormalised f32 triple; splits
// merge in ascending order, the first one as it is. So a split computed elsewhere has the same bits, and a row's result
// does not depend on which rows, chunks or threads surround it. K and V are read as rounded in the block; the scales of
// int8 multiply scores and softmax weights, not codes. m is in log2 units: of scale * log2(e) * q.k. Keys after a row's
// position may hold any bits. REQUIRES head_dim even, at most kHeadDimMax; at most kHeadsPerKvHeadMax query heads per
// KV head; block_tokens a multiple of 16 that divides kSplitTokens; the dtype of the backend's Precision.
inline constexpr uint32_t kSplitTokens = 256, kHeadDimMax = 256, kHeadsPerKvHeadMax = 64;

struct AttentionArgs {
  TensorView q;            // bf16 [rows, heads, head_dim]
  TensorView block_table;  // u32 [sequences, blocks_max]; ids are slots of `kv`
  SlotArena kv;
  uint16_t layer = 0;
  std::span<const TokenSpan> spans;
  float scale = 0;
  TensorView out;  // bf16 [rows, heads, head_dim]
};

}  // namespace spillway
