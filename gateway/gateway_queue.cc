// The gateway's queue: what enters it, who leaves it, and where to.
#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/check.h"
#include "gateway/gateway.h"
#include "scheduler/placement.h"

namespace spillway {

void Gateway::handle(const RequestArrived& arrived, Turn& turn) {
  const GenerateRequest& work = arrived.work;
  ++counters_.requests;
  CHECK(!work.prompt.empty() && work.output_tokens_max > 0);
  const auto prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
  Result<void> accepted = nodes_.could_fit(prompt_tokens, work.output_tokens_max);
  const bool begun = work.leader && requests_.find(*work.leader) != nullptr;  // its answer is under way
  if (draining_ && !begun)
    accepted = fail(ErrorCode::kUnavailable, "the gateway is draining: it finishes what it has and takes nothing new");
  if (!accepted) {
    ++counters_.errors[accepted.error().code];
    turn.effects.push_back(StreamError{work.request, accepted.error()});
    return;
  }
  GatewayRequest request;
  request.work = work;
  request.arrived = turn.now;
  request.queue_until = turn.now + config_.queue_wait_max;
  request.waterfall.prompt_tokens = prompt_tokens;
  request.prefix =
      prefix_chain(static_cast<uint64_t>(tenant_id(work.tenant)), work.prompt, config_.affinity_span_tokens,
                   config_.affinity_tokens_max / config_.affinity_span_tokens);
  const GatewayRequest& newcomer = requests_.insert(std::move(request));
  if (newcomer.held ? requests_.held() <= config_.held_max : requests_.queued() - requests_.held() <= config_.queue_max)
    return;
  // One tenant's burst locks out nobody else. What waits for its leader is in no order yet.
  fail_request(
      newcomer.held ? *requests_.find(work.request) : requests_.least_deserving(newcomer),
      {ErrorCode::kQueueFull,
       fmt::format("{} requests wait already, the most this gateway keeps; try again later", config_.queue_max)},
      turn);
}

void Gateway::dispatch_queue(Turn& turn) {
  while (requests_.running() < config_.running_max) {
    GatewayRequest* const head = requests_.queue_head();
    if (head == nullptr) return;
    const GenerateRequest& work = head->work;
    const auto prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
    // Again, for the nodes may have changed since it arrived.
    if (Result<void> fits = nodes_.could_fit(prompt_tokens, work.output_tokens_max); !fits) {
      fail_request(*head, fits.error(), turn);
      continue;
    }
    std::vector<NodeView> views = nodes_.views(uint64_t{prompt_tokens} + work.output_tokens_max, turn.now);
    for (NodeView& view : views)
      if (!work.score_prompt || !view.takes_prefill)  // scores come from no cache
        view.cached_tokens = affinity_.spans_at(head->prefix, view.node) * config_.affinity_span_tokens;
    const Placement placement = this->placement(*head, views);
    const auto* const place = std::get_if<Disaggregate>(&placement);
    if (place == nullptr) return;  // busy, or a role is missing: until a Load, a PeerUp or the deadline
    dispatch(*head, *place, turn);
  }
}

// Beside its leader if there is room, for its blocks are there.
Placement Gateway::placement(const GatewayRequest& request, const std::vector<NodeView>& views) const {
  const auto prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  const uint32_t output_tokens = request.work.output_tokens_max;
  if (request.beside) {
    std::vector<NodeView> near;
    std::ranges::copy_if(views, std::back_inserter(near), [&](const NodeView& view) {
      return view.node == request.beside->prefill || view.node == request.beside->decode;
    });
    const Placement beside = place_least_loaded({prompt_tokens, output_tokens, near, config_.affinity_tokens_max});
    if (std::holds_alternative<Disaggregate>(beside)) return beside;
  }
  return place_least_loaded({prompt_tokens, output_tokens, views, config_.affinity_tokens_max});
}

void Gateway::dispatch(GatewayRequest& request, const Disaggregate& place, Turn& turn) {
  const GenerateRequest& given = request.work;
  ++request.attempts;
  request.waterfall.queue = turn.now - request.arrived;
  RunningAttempt running;
  running.attempt = {given.request, {boot_, ++transfers_}, Epoch{request.attempts}};
  running.prefill.node = place.prefill;
  running.decode.node = place.decode;
  running.progress_by = turn.now + config_.progress_max;
  running.last_token_at = turn.now;
  if (requests_.running() == 0) moved_at_ = turn.now;
  requests_.start_head(running);
  affinity_.placed(request.prefix, place.prefill, place.decode);

  const Hello& prefill = *nodes_.hello(place.prefill);
  const Hello& decode = *nodes_.hello(place.decode);
  const auto prompt_tokens = checked_cast<uint32_t>(given.prompt.size());
  const auto blocks = [](uint64_t tokens, const Hello& node) {
    return checked_cast<uint32_t>((tokens - 1) / node.block_tokens + 1);
  };
  nodes_.place(place.prefill, given.request, {blocks(prompt_tokens, prefill), prompt_tokens});
  nodes_.place(place.decode, given.request,
               {blocks(tokens_at_first(prompt_tokens, given.output_tokens_max, decode.growth_margin), decode), 0});

  Work work;
  work.attempt = running.attempt;
  work.prompt = given.prompt;
  work.output_tokens_max = given.output_tokens_max;
  work.sampling = given.sampling;
  work.tenant = given.tenant;
  work.stop_tokens = given.stop_tokens;
  work.digest_logits = given.digest_logits;
  work.logprob_count = given.logprob_count;
  work.score_prompt = given.score_prompt;
  work.trace = given.trace;
  send(place.prefill, Prefill{work, decode.boot}, turn);
  send(place.decode, Reserve{std::move(work), prefill.boot}, turn);
}

}  // namespace spillway
