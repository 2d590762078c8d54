#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"
#include "common/logprobs.h"
#include "common/sampling_params.h"
#include "kernels/tensor.h"

namespace spillway {

// One token per row of logits, as SamplingParams say. Greedy: the highest logit after bias and penalties. Else inverse
// CDF over softmax(logits / temperature) of the tokens that no cut removes, summed in id order, at
// u = Philox4x32-10(key = seed, counter = {choice, position}) (Salmon et al. 2011): no sampler state exists to move.
// Cuts rank by logit, then lower id, and each leaves at least one token. All in f64, in an order that nothing but the
// row decides.
struct SampleRow {
  SamplingParams params{};               // biased ids are REQUIRED inside the vocabulary
  uint32_t position = 0;                 // of the token being sampled
  std::span<const TokenId> history{};    // where params.looks_back(): all tokens before it, prompt first
  uint32_t prompt_tokens = 0;            // of `history`
  bool digest = false;                   // fill logits_digest
  uint32_t logprob_count = 0;            // entries of `logprobs`; at most 1 + kLogprobsMax and 1 + vocab
  bool given = false;                    // `token` is known: nothing is sampled
  TokenId token = 0;                     // out, unless `given`
  uint64_t logits_digest = 0;            // out: XXH3-64 of the row's f32 bytes, before bias and penalties
  bool finite = true;                    // out: false when a logit is NaN or infinite; the rest is then meaningless
  std::vector<TokenLogprob> logprobs{};  // out: of `token`
};
struct SampleArgs {
  TensorView logits;          // f32 [rows, vocab]
  std::span<SampleRow> rows;  // one per row
};

}  // namespace spillway
