#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"

namespace spillway {

// Which tokens of which sequences go into the next step. Pure.
struct BatchCandidate {
  SequenceId sequence{};
  uint32_t prompt_tokens_left = 0;  // 0: decoding, wants exactly one token
  uint64_t arrival = 0;             // order of admission; lower first
};
struct BatchLimits {
  uint32_t tokens_max = 0;    // rows of one step
  uint32_t chunk_tokens = 0;  // prompt tokens of one sequence in one step
  uint32_t sequences_max = 0;
};
struct BatchRow {
  SequenceId sequence{};
  uint32_t token_count = 0;
};
// Decodes first, then prompt chunks, each in order of arrival, ties by SequenceId, whatever the order of `candidates`
// (stall-free batching: Sarathi-Serve, Agrawal et al. 2024). A prompt gets tokens only when every earlier one got its
// whole chunk. Limits are never exceeded, so decodes are all in only when they fit both maxima: with sequences_max
// bounding what is open and tokens_max >= sequences_max they always do, and the first prompt always moves. REQUIRES: at
// most one candidate per sequence.
std::vector<BatchRow> plan_batch(std::span<const BatchCandidate> candidates, const BatchLimits& limits);

}  // namespace spillway
