#pragma once

#include <cstdint>

#include "tests/support/tiny_model.h"

namespace spillway {

// SplitMix64 (Steele et al. 2014): the same numbers on every machine, unlike the standard distributions.
class TinyRandom {
 public:
  explicit TinyRandom(uint64_t seed) : state_(seed) {}
  uint64_t next();
  double uniform(double low, double high);

 private:
  uint64_t state_;
};

// A matrix of zero mean and standard deviation `deviation` (about), drawn in its stored form.
TinyTensor draw_matrix(TinyRandom& random, std::string name, GgufType type, uint32_t rows, uint32_t cols,
                       double deviation);
// A norm's weights: f32 around 1.
TinyTensor draw_norm(TinyRandom& random, std::string name, uint32_t cols);

}  // namespace spillway
