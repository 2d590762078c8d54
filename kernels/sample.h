#pragma once

#include <cstdint>
#include <span>

#include "common/ids.h"
#include "kernels/tensor.h"

namespace spillway {

struct SamplingParams {
  float temperature = 0;  // 0: greedy (lowest id among equals)
  uint64_t seed = 0;
  uint32_t choice = 0;
  bool operator==(const SamplingParams&) const = default;
};

// One token per row of logits. With temperature: inverse CDF over softmax(logits / temperature), summed in id order, at
// u = Philox4x32-10(key = seed, counter = {choice, position}) (Salmon et al. 2011): no sampler state exists to move.
struct SampleRow {
  SamplingParams params;
  uint32_t position = 0;       // of the token being sampled
  bool digest = false;         // fill logits_digest
  TokenId token = 0;           // out
  uint64_t logits_digest = 0;  // out: XXH3-64 of the row's f32 bytes
  bool finite = true;          // out: false when a logit is NaN or infinite; token is then meaningless
};
struct SampleArgs {
  TensorView logits;          // f32 [rows, vocab]
  std::span<SampleRow> rows;  // one per row
};

}  // namespace spillway
