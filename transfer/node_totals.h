#pragma once

#include <cstdint>

namespace spillway {

// Since the start of a node; a step's tokens are its rows, its sequences those that have rows in it.
struct NodeTotals {
  uint64_t steps = 0, step_tokens = 0, step_sequences = 0;
  uint64_t transfers = 0, transfer_failures = 0;  // D: requests whose KV came whole, or was awaited in vain
  uint64_t transfer_bytes = 0;                    // D: of those that came whole
  bool operator==(const NodeTotals&) const = default;
};

}  // namespace spillway
