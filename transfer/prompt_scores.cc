#include "transfer/prompt_scores.h"

#include <algorithm>

#include "common/check.h"

namespace spillway {

std::vector<PromptLogprobs> in_messages(const PromptLogprobs& scores) {
  std::vector<PromptLogprobs> pieces;
  const size_t each = scores.logprob_count;
  const size_t most = size_t{kScoredTokensMax} * each;
  for (size_t first = 0; first < scores.logprobs.size(); first += most) {
    const auto begin = scores.logprobs.begin() + static_cast<ptrdiff_t>(first);
    const auto count = static_cast<ptrdiff_t>(std::min(most, scores.logprobs.size() - first));
    pieces.push_back({scores.attempt,
                      scores.position_first + checked_cast<uint32_t>(first / each),
                      scores.logprob_count,
                      {begin, begin + count}});
  }
  return pieces;
}

}  // namespace spillway
