#pragma once

#include <cstddef>
#include <cstdint>

// Where a value of K or V lies in a part of encoding cpu_tiled, in elements (bf16 or int8 codes). A part holds K, then
// V, then their scales (KvLayout):
//   K [kv_head][token / 16][dim / 2][16 tokens][2 dims]     V [kv_head][token / 2][dim][2 tokens]
// so that one load of 32 elements holds 16 tokens x one pair of dims of K, or 16 dims x one pair of tokens of V: the
// operand of one multiply-accumulate of pairs. Plain functions, so that files compiled for one ISA may include this.
namespace spillway::cpu {

inline constexpr uint32_t kTileTokens = 16;

struct KvTile {
  uint32_t block_tokens = 0, head_dim = 0;

  constexpr size_t head_elements() const { return size_t{block_tokens} * head_dim; }  // one kv_head's K, or its V
  constexpr size_t k_index(uint32_t kv_head, uint32_t token, uint32_t dim) const {
    const size_t tile = (kv_head * head_elements()) + size_t{token / kTileTokens} * kTileTokens * head_dim;
    return tile + size_t{dim / 2} * (2 * kTileTokens) + (token % kTileTokens) * 2 + dim % 2;
  }
  constexpr size_t v_index(uint32_t kv_head, uint32_t token, uint32_t dim) const {  // from the start of V
    return kv_head * head_elements() + size_t{token / 2} * 2 * head_dim + size_t{dim} * 2 + token % 2;
  }
  constexpr size_t scale_index(uint32_t kv_head, uint32_t token) const {  // from the start of K's scales, or of V's
    return size_t{kv_head} * block_tokens + token;
  }
};

}  // namespace spillway::cpu
