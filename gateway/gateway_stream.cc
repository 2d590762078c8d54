// What leaves for a request's stream: its tokens in order, what they tell of its parts' times, its prompt's scores.
#include <algorithm>
#include <optional>

#include "gateway/gateway.h"

namespace spillway {
namespace {

Duration from_us(uint32_t us) { return std::chrono::microseconds(us); }

}  // namespace

void Gateway::on_message(PeerId from, const PromptLogprobs& scores, Turn& turn) {
  GatewayRequest* const request = find(scores.attempt);
  if (request == nullptr) return;
  const RunningAttempt::Leg& leg = request->running->first_leg();
  if (!leg.open || leg.node != from) return;
  if (request->first_token) return;  // scores come before it, and did
  const GenerateRequest& work = request->work;
  if (!work.score_prompt || scores.logprob_count != work.logprob_count || scores.position_first == 0 ||
      scores.position_first + scores.logprobs.size() / work.logprob_count > work.prompt.size())
    return;
  StreamScores effect;
  effect.request = work.request;
  effect.position_first = scores.position_first;
  effect.logprob_count = scores.logprob_count;
  effect.logprobs = scores.logprobs;
  turn.effects.push_back(effect);
}

void Gateway::stream_ready_tokens(GatewayRequest& request, Turn& turn) {
  while (const std::optional<Token> token = request.running->tokens.next()) {
    request.running->progress_by = turn.now + config_.progress_max;
    request.running->last_token_at = turn.now;
    moved_at_ = turn.now;
    if (token->index == 0 && request.first_token) {  // told by an attempt that D refused meanwhile
      if (*request.first_token == token->token) continue;
      return fail_request(
          request, {ErrorCode::kInternal, "the first token of its second attempt is another than that of its first"},
          turn);
    }
    if (token->index == 0) request.first_token = token->token;
    time_token(request, *token, turn.now);
    // From its second token on its nodes have the prompt's full blocks: its followers find them there.
    if (token->index == 1)
      requests_.release(request.work.request, request.running->nodes(), turn.now + config_.queue_wait_max);
    turn.effects.push_back(StreamToken{request.work.request, token->index, token->token, token->logits_digest,
                                       request.waterfall.total, token->finish == FinishReason::kStop, token->logprobs});
    if (token->finish == FinishReason::kNone) continue;
    end(request, token->finish, turn);
    return;
  }
}

void Gateway::time_token(GatewayRequest& request, const Token& token, TimePoint now) {
  Waterfall& waterfall = request.waterfall;
  const NodeTimings& timings = token.timings;
  waterfall.output_tokens = token.index + 1;
  ++counters_.output_tokens;
  waterfall.total = now - request.arrived;
  if (token.index == 0) {
    request.first_token_at = now;
    waterfall.ttft = now - request.arrived;
    waterfall.prefill_wait = from_us(timings.wait_us);
    waterfall.prefill = from_us(timings.compute_us);
    waterfall.prefill_cached_tokens = std::min(timings.cached_tokens, waterfall.prompt_tokens);
    counters_.prompt_tokens += waterfall.prompt_tokens;
    counters_.cached_tokens += waterfall.prefill_cached_tokens;
  } else if (token.index == 1) {
    if (!waterfall.colocated) waterfall.handover = now - request.first_token_at;
    waterfall.transfer = from_us(timings.transfer_us);
    waterfall.commit = from_us(timings.commit_us);
    waterfall.decode_queue = from_us(timings.wait_us);
    waterfall.decode_step = from_us(timings.compute_us);
    waterfall.decode_cached_tokens = std::min(timings.cached_tokens, waterfall.prompt_tokens);
  }
}

}  // namespace spillway
