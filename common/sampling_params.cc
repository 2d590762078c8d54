#include "common/sampling_params.h"

#include <algorithm>
#include <cmath>

namespace spillway {
namespace {

// False for a value that is not a number.
bool within(float value, float low, float high) { return value >= low && value <= high; }

}  // namespace

std::optional<std::string_view> out_of_bounds(const SamplingParams& params) {
  if (!std::isfinite(params.temperature) || params.temperature < 0) return "temperature";
  // Above zero, and so that arithmetic with flushed denormals agrees: the quotient of a logit stays finite.
  if (!std::isnormal(params.top_p) || !within(params.top_p, 0, 1)) return "top_p";
  if (!within(params.min_p, 0, 1)) return "min_p";
  if (!within(params.presence_penalty, -kPenaltyMax, kPenaltyMax)) return "presence_penalty";
  if (!within(params.frequency_penalty, -kPenaltyMax, kPenaltyMax)) return "frequency_penalty";
  if (!std::isnormal(params.repetition_penalty) || !within(params.repetition_penalty, 0, kPenaltyMax))
    return "repetition_penalty";
  const bool biases_fit =
      params.logit_bias.size() <= kLogitBiasMax && std::ranges::all_of(params.logit_bias, [](const LogitBias& one) {
        return one.token < kTokenIdEnd && within(one.bias, -kBiasMax, kBiasMax);
      });
  if (!biases_fit) return "logit_bias";
  return std::nullopt;
}

}  // namespace spillway
