#pragma once

#include <cstring>
#include <vector>

#include "kv/block.h"

namespace spillway {

// Memory for `slots` small blocks: 3 parts of 4096 bytes each.
class TestArena {
 public:
  explicit TestArena(uint32_t slots) {
    arena_.layout = {.layer_count = 3, .kv_heads = 1, .head_dim = 8, .block_tokens = 16};
    arena_.slot_count = slots;
    memory_.resize(slots * arena_.layout.block_bytes());
    arena_.base = memory_.data();
  }
  const SlotArena& arena() const { return arena_; }
  std::span<std::byte> parts(uint32_t slot, LayerRange layers) const { return arena_.parts(SlotId{slot}, layers); }
  // Other bytes for every (slot, layer, place, salt).
  void fill(uint32_t slot, uint32_t salt) {
    const auto block = parts(slot, {0, arena_.layout.layer_count});
    for (size_t i = 0; i < block.size(); ++i) {
      const uint64_t mixed = (uint64_t{salt} << 40 | uint64_t{slot} << 24 | i) * 0x9E3779B97F4A7C15ull;
      block[i] = static_cast<std::byte>(mixed >> 56);
    }
  }
  bool untouched(uint32_t slot) const {
    for (const std::byte byte : parts(slot, {0, arena_.layout.layer_count}))
      if (byte != std::byte{}) return false;
    return true;
  }

 private:
  SlotArena arena_;
  std::vector<std::byte> memory_;
};

}  // namespace spillway
