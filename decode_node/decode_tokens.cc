// What a decode node says of an attempt's tokens: its own, and, colocated, token 0 and the prompt's scores too.
#include <fmt/core.h>

#include <utility>

#include "decode_node/decode_node.h"
#include "transfer/prompt_scores.h"

namespace spillway {

void DecodeNode::take_scores(DecodeRequest& request, const ScoredTokens& scored, Turn& turn) {
  if (!scored.finite) {
    fail_both(request, {ErrorCode::kInternal, "the prompt's logits are not finite"}, turn);
    return;
  }
  for (PromptLogprobs& message :
       in_messages({request.attempt, scored.position_first, scored.logprob_count, scored.logprobs}))
    send(request.gateway, std::move(message), turn);
}

// Of token 0, as a prefill node times it; what follows it is timed from here on.
NodeTimings DecodeNode::prompt_timings(DecodeRequest& request, TimePoint now) const {
  const TimePoint first_step = request.first_step.value_or(now);
  request.first_step.reset();
  request.done_at = request.committed_at = now;
  return {.wait_us = timing_us(first_step - request.arrived),
          .compute_us = timing_us(now - first_step),
          .cached_tokens = request.cached_tokens};
}

// Of token 1.
NodeTimings DecodeNode::decode_timings(const DecodeRequest& request, Duration step_elapsed, TimePoint now) const {
  NodeTimings timings;
  timings.wait_us = timing_us(request.first_step.value_or(now) - request.committed_at);
  timings.compute_us = timing_us(step_elapsed);
  if (request.first_landed) timings.transfer_us = timing_us(*request.last_landed - *request.first_landed);
  timings.commit_us = timing_us(request.committed_at - request.done_at);
  timings.cached_tokens = request.cached_tokens;
  return timings;
}

void DecodeNode::take_token(DecodeRequest& request, const EngineToken& token, Duration step_elapsed, Turn& turn) {
  if (!token.finite) {
    fail_both(request, {ErrorCode::kInternal, fmt::format("the logits of output token {} are not finite", token.index)},
              turn);
    return;
  }
  const FinishReason finish = finish_of(request.work, token.index, token.token);
  Token message{request.attempt, token.index, token.token, finish, token.logits_digest, {}, token.logprobs};
  if (token.index == 0) message.timings = prompt_timings(request, turn.now);
  if (token.index == 1) message.timings = decode_timings(request, step_elapsed, turn.now);
  send(request.gateway, message, turn);
  if (finish != FinishReason::kNone) release(request, turn);
}

}  // namespace spillway
