#pragma once

#include <cstdint>
#include <span>

#include "kernels/attention.h"
#include "kernels/tensor.h"
#include "kv/block.h"

namespace spillway {

// Rotates interleaved pairs (2i, 2i+1) of q and k by position * theta_base^(-2i/head_dim) (Su et al. 2021, in the pair
// order of GGUF "llama"), rounds to bf16, and writes k, v into the open blocks. Angles are computed in f64 and rounded
// once. Writing token row 0 of a block first zeroes that block's part, so unused rows are always zero. Appending again
// leaves the same bytes, but nobody may read the block meanwhile.
struct RopeAppendArgs {
  TensorView qkv;          // f32 [rows, (heads + 2 * kv_heads) * head_dim]
  TensorView block_table;  // u32 [sequences, blocks_max]
  SlotArena kv;
  uint16_t layer = 0;
  std::span<const TokenSpan> spans;
  uint16_t heads = 0;
  TensorView rope_table;  // f32 [positions_max, head_dim]: cos, sin per pair (fill_rope_table)
  TensorView q_out;       // bf16 [rows, heads, head_dim]
};

// Fills a rope_table of table.size() / head_dim positions. Any thread. REQUIRES head_dim even, table whole positions.
void fill_rope_table(double theta_base, uint32_t head_dim, std::span<float> table);

}  // namespace spillway
