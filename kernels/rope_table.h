#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace spillway {

// How far a model turns its pairs: pair i of a head by
//   position * position_scale * theta_base^(-2i / head_dim) / divisors[i]
// (Su et al. 2021), and every sine and cosine is multiplied by `magnitude`. A value.
struct RopeSettings {
  double theta_base = 10000.0;
  double position_scale = 1.0;  // linear scaling (Chen et al. 2023): 1 / factor
  double magnitude = 1.0;
  std::vector<float> divisors{};  // [head_dim / 2] of Llama 3.1's scaling, as GGUF stores it; empty: none
};

// Fills table.size() / head_dim positions, f32 [positions, head_dim]: cosine and sine per pair, computed in f64 and
// rounded once. Any thread. REQUIRES head_dim even, table whole positions, divisors none or head_dim / 2.
void fill_rope_table(const RopeSettings& settings, uint32_t head_dim, std::span<float> table);

}  // namespace spillway
