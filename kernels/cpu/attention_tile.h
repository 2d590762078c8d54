#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cpu/isa_kernels.h"

namespace spillway::cpu {

// An unnormalised softmax state of some query vectors, as one split yields it: f32, m in log2 units (scale_log2 * q.k).
struct SplitState {
  float* m = nullptr;  // [vectors]; -inf: the vector saw no key of this split
  float* l = nullptr;  // [vectors]
  float* o = nullptr;  // [vectors][head_dim]
};

// Rows of one span that are computed together, for one kv head: query vectors are its rows x the kv head's query heads.
struct Tile {
  const TokenSpan* span = nullptr;
  uint32_t row_first = 0, rows = 0;  // within the span
  uint32_t kv_head = 0;
};

// One thread's working memory for one tile.
struct alignas(64) AttentionScratch {
  float total_o[kTileVectorsMax * kHeadDimMax], part_o[kTileVectorsMax * kHeadDimMax];
  float total_m[kTileVectorsMax], total_l[kTileVectorsMax], part_m[kTileVectorsMax], part_l[kTileVectorsMax];
  float l_lanes[kTileVectorsMax * kLanes];
  uint16_t q[kTileVectorsMax * kHeadDimMax];
  uint16_t k[kFoldTokensMax * kHeadDimMax], v[kFoldTokensMax * kHeadDimMax];  // codes of a fold, widened
  uint8_t valid[kTileVectorsMax];
  SplitState total() { return {total_m, total_l, total_o}; }
  SplitState part() { return {part_m, part_l, part_o}; }
};

// A tile whose splits several threads compute at once; whoever ends the last one of a round merges them.
struct SharedTile {
  Tile tile;
  uint32_t split_count = 0;
  uint32_t split_first = 0, round_splits = 0;  // of the tile's splits, those of the round
  uint32_t round_first = 0;                    // of the round's tasks, the first of this tile
  float* states = nullptr;                     // one after the other, a split of the round each
  std::atomic<uint32_t> splits_left{0};        // of the round
};

// The backend's memory for shared tiles, made once: 128 KiB of states per thread, of which a tile's state takes 66 KB
// at most and that of one decode row of 3 query heads x 64 dims 832 bytes. What does not fit waits for another round.
struct SharedTiles {
  static constexpr uint32_t kTilesPerThread = 8;
  static constexpr size_t kFloatsPerThread = size_t{32} << 10;
  static_assert(kFloatsPerThread >= kTileVectorsMax * (kHeadDimMax + 2) + 15);

  explicit SharedTiles(uint32_t threads)
      : tiles_max(threads * kTilesPerThread),
        tiles(std::make_unique<SharedTile[]>(tiles_max)),
        states(threads * kFloatsPerThread),
        carried(kTileVectorsMax * (kHeadDimMax + 2) + 15) {}

  const uint32_t tiles_max;
  const std::unique_ptr<SharedTile[]> tiles;
  std::vector<float> states;
  std::vector<float> carried;  // merged state of the one tile whose splits take more than a round
};

}  // namespace spillway::cpu
