#pragma once

#include <cstdint>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "kernels/sample.h"
#include "kv/block.h"

namespace spillway {

// Jobs for the compute thread and what it answers. Values: they name slots, never memory.

struct StepShare {  // one sequence's part of a step
  SequenceId sequence{};
  uint32_t token_first = 0, token_count = 0;  // its rows, in StepPlan::tokens
  uint32_t position_first = 0;                // absolute position of its first row
  uint32_t block_first = 0, block_count = 0;  // its block table from position 0, in StepPlan::blocks
  bool samples = false;                       // its last row is sampled
  SampleRow sample;                           // inputs where `samples`, but for the history
  bool poisoned = false;                      // tests only: its logits become NaN before they are sampled
  uint32_t history_first = 0;                 // where the row looks back: sample.position tokens in StepPlan::history
  uint32_t score_count = 0;                   // of the log-probabilities of the tokens after its first so many rows ...
  uint32_t logprob_count = 0;                 // ... each so many entries
  TokenId after = 0;                          // the token after its last row, where that is scored
};
struct StepPlan {
  StepId step{};
  std::vector<TokenId> tokens;
  std::vector<SlotId> blocks;
  std::vector<StepShare> shares;
  std::vector<TokenId> history{};
  bool announce_layers = false;  // send a LayerDone after each layer's append
};
// The share's row for the sampler. It looks into the plan, which must outlive it. REQUIRES share.samples.
SampleRow sample_row(const StepPlan& plan, const StepShare& share);
StepShare* first_sampled(StepPlan& plan);  // nullptr: it samples none

struct LayerDone {  // this layer's new K and V of the step lie in their slots
  StepId step{};
  uint16_t layer = 0;
};
struct SampledToken {
  SequenceId sequence{};
  TokenId token = 0;
  uint64_t logits_digest = 0;
  bool finite = true;
  std::vector<TokenLogprob> logprobs{};  // where they were asked for
};
struct ScoredTokens {  // of a share with a score_count, which are in their order
  SequenceId sequence{};
  uint32_t position_first = 0;  // of the first token scored
  uint32_t logprob_count = 0;   // entries of each
  bool finite = true;           // false: some logits were not, and the rest is meaningless
  std::vector<TokenLogprob> logprobs{};
};
struct StepDone {  // after all LayerDone of the step
  StepId step{};
  std::vector<SampledToken> sampled;
  Duration elapsed{};
  std::vector<ScoredTokens> scored{};
};

}  // namespace spillway
