#pragma once

#include <cstdint>

#include "kernels/attention.h"
#include "kernels/cpu/isa_kernels.h"

namespace spillway::cpu {

// An unnormalised softmax state of some query vectors, as one split yields it: f32, m in log2 units (scale_log2 * q.k).
struct SplitState {
  float* m = nullptr;  // [vectors]; -inf: the vector saw no key of this split
  float* l = nullptr;  // [vectors]
  float* o = nullptr;  // [vectors][head_dim]
};

// One thread's working memory for one tile: some rows of one sequence x the query heads of one kv head.
struct alignas(64) AttentionScratch {
  float total_o[kTileVectorsMax * kHeadDimMax], part_o[kTileVectorsMax * kHeadDimMax];
  float total_m[kTileVectorsMax], total_l[kTileVectorsMax], part_m[kTileVectorsMax], part_l[kTileVectorsMax];
  float l_lanes[kTileVectorsMax * kLanes];
  uint16_t q[kTileVectorsMax * kHeadDimMax];
  uint8_t valid[kTileVectorsMax];
  SplitState total() { return {total_m, total_l, total_o}; }
  SplitState part() { return {part_m, part_l, part_o}; }
};

}  // namespace spillway::cpu
