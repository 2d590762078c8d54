#include "scheduler/batching.h"

#include <algorithm>
#include <tuple>

namespace spillway {

std::vector<BatchRow> plan_batch(std::span<const BatchCandidate> candidates, const BatchLimits& limits) {
  std::vector<BatchCandidate> order(candidates.begin(), candidates.end());
  std::ranges::sort(order, {}, [](const BatchCandidate& candidate) {
    return std::tuple(candidate.prompt_tokens_left > 0, candidate.arrival, candidate.sequence);
  });
  std::vector<BatchRow> rows;
  uint32_t tokens_left = limits.tokens_max;
  for (const BatchCandidate& candidate : order) {
    const uint32_t wanted = candidate.prompt_tokens_left == 0 ? 1 : candidate.prompt_tokens_left;
    const uint32_t most = candidate.prompt_tokens_left == 0 ? 1 : limits.chunk_tokens;
    const uint32_t count = std::min({wanted, most, tokens_left});
    if (count == 0 || rows.size() >= limits.sequences_max) break;
    rows.push_back({candidate.sequence, count});
    tokens_left -= count;
  }
  return rows;
}

}  // namespace spillway
