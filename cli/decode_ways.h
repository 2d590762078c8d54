#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "cli/local_model.h"
#include "common/clock.h"
#include "common/ids.h"
#include "kernels/op_counters.h"

namespace spillway {

// Three ways to compute the same tokens, each on the Decoder itself, without engine or batch.
enum class DecodeWay : uint8_t {
  kNoCache,  // every step computes every row of every layer and the classifier again
  kPruned,   // the same, but after the last layer's K and V only the row that predicts goes on
  kKvCache,  // K and V of earlier rows stay: a step computes the newest row only
};
std::string_view way_name(DecodeWay way);

struct DecodeStep {
  uint32_t position_first = 0;  // of the rows computed
  uint32_t rows = 0;
  TokenId token = 0;           // greedy
  uint64_t logits_digest = 0;  // of the row that predicts (SampleRow)
  bool finite = true;
  OpCounters counters;  // counted inside the operations
  Duration elapsed{};
};
struct DecodeRun {
  std::vector<DecodeStep> steps;    // one per token
  std::vector<float> final_logits;  // [vocab] of the last step
};

// Greedy, `tokens` steps. The slots it uses are filled with NaN first, and before each step of a way without cache, so
// that a row read but not computed would show. Resets the backend's counters.
// REQUIRES: prompt + tokens - 1 within model_len, KV memory and, without cache, rows_max and logit_rows_max.
DecodeRun decode_by(LocalModel& model, DecodeWay way, std::span<const TokenId> prompt, uint32_t tokens);

// What the counters of such a step must be, from the shapes alone. For one sequence whose rows
// [position_first, position_first + rows) are computed, the last of them predicting.
OpCounters expected_counters(const LocalModel& model, DecodeWay way, uint32_t position_first, uint32_t rows);

}  // namespace spillway
