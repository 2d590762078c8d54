#pragma once

#include <cstdint>

#include "common/ids.h"

namespace spillway {

inline constexpr uint32_t kLogprobsMax = 20;  // highest tokens listed beside the one at hand

// Natural log-probability under the model's own distribution: log-softmax of the f32 logits, before bias, penalties,
// temperature and cuts. Finite, at most 0.
//
// Where a list of these says how probable a token was, the token itself comes first, then the highest, descending,
// equal ones by lower id: 1 to 1 + kLogprobsMax entries. An empty list: nobody asked.
struct TokenLogprob {
  TokenId token = 0;
  float logprob = 0;
  bool operator==(const TokenLogprob&) const = default;
};

}  // namespace spillway
