#pragma once

#include <cstdint>
#include <string>
#include <vector>

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
// f32 between low and high: a norm's weights, a bias.
TinyTensor draw_vector(TinyRandom& random, std::string name, uint32_t cols, double low, double high);
TinyTensor vector_of(std::string name, const std::vector<float>& values);  // these, as F32

}  // namespace spillway
