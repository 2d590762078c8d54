#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/cpu/kv_tile.h"
#include "tests/kernels/backend_cases.h"

namespace spillway {

// Paged KV of a few sequences, filled through the tile index rather than by rope_append, with every unwritten value
// NaN.
class PagedKv {
 public:
  // `slots[s]` are sequence s's slots in order; all sequences have as many.
  PagedKv(KvLayout layout, std::vector<std::vector<uint32_t>> slots) : layout_(layout) {
    blocks_max_ = static_cast<uint32_t>(slots[0].size());
    for (const auto& row : slots) table_.insert(table_.end(), row.begin(), row.end());
    slot_count_ = *std::max_element(table_.begin(), table_.end()) + 1;
    memory_.assign(slot_count_ * layout.block_bytes() / 2, kNan);
  }

  SlotArena arena() { return {reinterpret_cast<std::byte*>(memory_.data()), 0, layout_, slot_count_}; }
  TensorView table() {
    return {reinterpret_cast<std::byte*>(table_.data()),
            DataType::kU32,
            {static_cast<uint32_t>(table_.size()) / blocks_max_, blocks_max_, 1}};
  }
  uint16_t* part(uint32_t sequence, uint32_t token, uint16_t layer) {
    const uint32_t slot = table_[sequence * blocks_max_ + token / layout_.block_tokens];
    return reinterpret_cast<uint16_t*>(arena().parts(SlotId{slot}, {layer, 1}).data());
  }
  uint16_t& k(uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    return part(sequence, token, layer)[tile().k_index(head, token % layout_.block_tokens, dim)];
  }
  uint16_t& v(uint32_t sequence, uint32_t token, uint16_t layer, uint32_t head, uint32_t dim) {
    return part(sequence, token,
                layer)[layout_.k_bytes() / 2 + tile().v_index(head, token % layout_.block_tokens, dim)];
  }
  // Writes tokens [first, end) of one layer; a token's values depend on nothing but (seed, token).
  void fill(uint32_t sequence, uint32_t first, uint32_t end, uint16_t layer, uint32_t seed) {
    for (uint32_t token = first; token < end; ++token) {
      Values values(seed * 100003 + token);
      for (uint32_t head = 0; head < layout_.kv_heads; ++head) {
        for (uint32_t dim = 0; dim < layout_.head_dim; ++dim) {
          k(sequence, token, layer, head, dim) = bf16_from_f32(2 * values.next());
          v(sequence, token, layer, head, dim) = bf16_from_f32(values.next());
        }
      }
    }
  }

  static constexpr uint16_t kNan = 0x7fc1;

 private:
  cpu::KvTile tile() const { return {layout_.block_tokens, layout_.head_dim}; }
  KvLayout layout_;
  uint32_t blocks_max_ = 0, slot_count_ = 0;
  std::vector<uint32_t> table_;
  std::vector<uint16_t> memory_;
};

// 0, 1, 2, ... from `first`.
inline std::vector<uint32_t> slots_from(uint32_t first, uint32_t count) {
  std::vector<uint32_t> slots(count);
  std::iota(slots.begin(), slots.end(), first);
  return slots;
}

}  // namespace spillway
