#pragma once

#include <vector>

#include "transfer/messages.h"

namespace spillway {

// The scores of one step's share, as messages of kScoredTokensMax tokens at most, in order.
std::vector<PromptLogprobs> in_messages(const PromptLogprobs& scores);

}  // namespace spillway
