#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "common/ids.h"

namespace spillway {

struct LogitBias {
  TokenId token = 0;
  float bias = 0;  // added to its logit; -infinity (never on the wire): not sampled
  bool operator==(const LogitBias&) const = default;
};

// How one request's tokens are chosen; meanings as in OpenAI's and vLLM's APIs. A value; the defaults are greedy with
// everything else off. In this order: logit_bias, repetition, frequency and presence penalty, temperature; then of what
// is left top_k, top_p, min_p.
struct SamplingParams {
  float temperature = 0;  // 0: greedy (lowest id among equals); the cuts then have no effect
  uint64_t seed = 0;
  uint32_t choice = 0;
  uint32_t top_k = 0;            // so many highest logits may be drawn; 0: off
  float top_p = 1;               // (0, 1]: the fewest highest that hold this share of the probability; 1: off
  float min_p = 0;               // [0, 1]: those at least so probable as the highest times this; 0: off
  float presence_penalty = 0;    // [-2, 2]: taken from logits of tokens generated before
  float frequency_penalty = 0;   // [-2, 2]: the same, times how often
  float repetition_penalty = 1;  // (0, 2]: divides logits > 0 of tokens in prompt or output, multiplies the others
  uint32_t min_tokens = 0;       // tokens that end the request are not sampled before so many others
  std::vector<LogitBias> logit_bias{};  // at most kLogitBiasMax as a request states them
  bool operator==(const SamplingParams&) const = default;

  // Whether a token depends on the tokens before it other than through its logits.
  bool looks_back() const { return presence_penalty != 0 || frequency_penalty != 0 || repetition_penalty != 1; }
};

inline constexpr uint32_t kLogitBiasMax = 300;
inline constexpr float kBiasMax = 100;            // of a LogitBias, either sign
inline constexpr float kPenaltyMax = 2;           // presence, frequency (either sign) and repetition
inline constexpr TokenId kTokenIdEnd = 1u << 31;  // biased ids stay below

// The name of the first value out of bounds or not a number; nothing: all are as stated above.
std::optional<std::string_view> out_of_bounds(const SamplingParams& params);

}  // namespace spillway
