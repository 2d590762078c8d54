#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"
#include "tests/support/tiny_model.h"

namespace spillway {

// The forward pass of each architecture written down a second time, as plainly as possible: f64 throughout, no cache,
// no blocks, one row after the other. It shares no code with the product.
enum class ReferenceRounding : uint8_t {
  kNone,  // the mathematics
  kBf16   // inputs of products, q, k, v and weights of matrices that aren't quantised as a whole rounded to bf16, as
          // docs/numerics.md says; sums stay f64
};
// f64 [tokens, vocab].
std::vector<std::vector<double>> reference_logits(const TinyModel& model, std::span<const TokenId> tokens,
                                                  ReferenceRounding rounding);

}  // namespace spillway
