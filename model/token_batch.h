#pragma once

#include <cstdint>
#include <span>

#include "common/ids.h"
#include "kernels/attention.h"
#include "kernels/tensor.h"

namespace spillway {

// The rows of one forward pass: prefill chunks and decode rows differ only in their spans. Borrowed for the call.
struct TokenBatch {
  std::span<const TokenId> tokens;       // one per row
  std::span<const TokenSpan> spans;      // cover the rows in order
  TensorView block_table;                // u32 [sequences, blocks_max]
  std::span<const uint32_t> logit_rows;  // rows that reach the classifier, ascending
};

}  // namespace spillway
