#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/tensor.h"
#include "kv/block.h"

namespace spillway {

// Finishes the rows of a QKV product: adds the bias; normalises every head of q and of k (RMSNorm over head_dim,
// summed as rms_norm sums); turns interleaved pairs (2i, 2i+1) of q and k by the row of rope_table at their position
// (Su et al. 2021); rounds q to bf16; and writes k, v into the open blocks, rounded to the layout's dtype. All of it in
// f32 up to that one rounding. For int8 a head's row x is stored as codes x / scale, rounded to nearest even, with
// scale = max |x| / 127 in f32: 0, and all codes with it, where that is below 2^-126; NaN where a value is not finite.
// Bias and norms are a model's own: where it has none their step is skipped. Writing token row 0 of a block first
// zeroes that block's part, so unused rows are always zero. Appending again leaves the same bytes, but nobody may read
// the block meanwhile. REQUIRES head_dim even, at most kHeadDimMax; the dtype of the backend's Precision; no two spans
// that write to one block.
struct RopeAppendArgs {
  TensorView qkv;          // f32 [rows, (heads + 2 * kv_heads) * head_dim]
  TensorView block_table;  // u32 [sequences, blocks_max]
  SlotArena kv;
  uint16_t layer = 0;
  std::span<const TokenSpan> spans;
  uint16_t heads = 0;
  TensorView rope_table;  // f32 [positions_max, head_dim]: cos, sin per pair (fill_rope_table)
  TensorView q_out;       // bf16 [rows, heads, head_dim]
  TensorView bias{};      // f32 [(heads + 2 * kv_heads) * head_dim], or no data
  TensorView q_norm{};    // f32 [head_dim], or no data
  TensorView k_norm{};    // as q_norm: both or neither
  float norm_epsilon = 0.0f;
};

}  // namespace spillway
