// The gateway's queue: what enters it, who leaves it, and where to.
#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <span>
#include <utility>

#include "common/check.h"
#include "gateway/gateway.h"
#include "scheduler/placement.h"

namespace spillway {
namespace {

// Spans wholly inside the public prefix are the same for all tenants, and so is what a node has of them.
std::vector<uint64_t> affinity_chain(const GenerateRequest& work, const GatewayConfig& config) {
  const std::span<const TokenId> prompt = work.prompt;
  const uint32_t span_tokens = config.affinity_span_tokens;
  const size_t spans_max = config.affinity_tokens_max / span_tokens;
  const size_t public_tokens = work.public_prefix.tokens / span_tokens * span_tokens;
  std::vector<uint64_t> chain = prefix_chain(static_cast<uint64_t>(tenant_id(work.public_prefix.key)),
                                             prompt.first(public_tokens), span_tokens, spans_max);
  const uint64_t before = chain.empty() ? 0 : chain.back();
  const std::vector<uint64_t> own = prefix_chain(before ^ static_cast<uint64_t>(tenant_id(work.tenant)),
                                                 prompt.subspan(public_tokens), span_tokens, spans_max - chain.size());
  chain.insert(chain.end(), own.begin(), own.end());
  return chain;
}

// Nothing: it waits.
std::optional<AttemptNodes> nodes_of(const Placement& placement) {
  if (const auto* const pair = std::get_if<Disaggregate>(&placement)) return AttemptNodes{pair->prefill, pair->decode};
  if (const auto* const one = std::get_if<Colocate>(&placement)) return AttemptNodes{one->decode, one->decode};
  return std::nullopt;
}

}  // namespace

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
  if (requests_.queued() + requests_.running() == 0) moved_at_ = turn.now;
  GatewayRequest request;
  request.work = work;
  request.arrived = turn.now;
  request.queue_until = turn.now + config_.queue_wait_max;
  request.waterfall.prompt_tokens = prompt_tokens;
  request.prefix = affinity_chain(work, config_);
  const GatewayRequest& newcomer = requests_.insert(std::move(request));
  if (newcomer.held ? requests_.held() <= config_.held_max : requests_.queued() - requests_.held() <= config_.queue_max)
    return;
  // One tenant's burst locks out nobody else.
  const std::string full = newcomer.held ? fmt::format("{} further choices of prompts wait already", config_.held_max)
                                         : fmt::format("{} requests wait already", config_.queue_max);
  fail_request(newcomer.held ? requests_.last_held_of_most(newcomer) : requests_.least_deserving(newcomer),
               {ErrorCode::kQueueFull, full + ", the most this gateway keeps; try again later"}, turn);
}

void Gateway::dispatch_queue(Turn& turn) {
  while (requests_.running() < config_.running_max) {
    GatewayRequest* const head = requests_.queue_head();
    if (head == nullptr) break;
    const GenerateRequest& work = head->work;
    const auto prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
    // Again, for the nodes may have changed since it arrived.
    Result<void> fits = nodes_.could_fit(prompt_tokens, work.output_tokens_max);
    if (fits) fits = nodes_.could_fit_working(prompt_tokens, work.output_tokens_max);
    if (!fits) {
      fail_request(*head, fits.error(), turn);
      continue;
    }
    const std::vector<NodeView> views = views_for(*head, turn.now);
    const Placement placement = this->placement(*head, views);
    const std::optional<AttemptNodes> place = nodes_of(placement);
    // Busy, or a role is missing: until a Load, a PeerUp or the deadline.
    if (!place) return ask_for_room(head, views, turn);
    dispatch(*head, *place, turn);
  }
  ask_for_room(nullptr, {}, turn);
}

// At its first dispatch, or where it ends without one.
void Gateway::count_wait(const GatewayRequest& request, TimePoint now) {
  if (request.attempts == 0) counters_.queue_waits.add(now - request.arrived);
}

std::vector<NodeView> Gateway::views_for(const GatewayRequest& request, TimePoint now) const {
  const GenerateRequest& work = request.work;
  std::vector<NodeView> views = nodes_.views(uint64_t{work.prompt.size()} + work.output_tokens_max, now);
  for (NodeView& view : views)
    if (!work.score_prompt || !view.takes_prefill)  // scores come from no cache
      view.cached_tokens = affinity_.spans_at(request.prefix, view.node) * config_.affinity_span_tokens;
  return views;
}

// Only the head asks: who waits behind it would not go before it.
void Gateway::ask_for_room(const GatewayRequest* head, const std::vector<NodeView>& views, Turn& turn) {
  std::vector<RoomWanted> wanted;
  if (head != nullptr) {
    const GenerateRequest& work = head->work;
    wanted = room_to_ask_for({checked_cast<uint32_t>(work.prompt.size()), work.output_tokens_max, views},
                             wants_.asked_for(work.request));
  }
  const std::optional<RequestId> request = head == nullptr ? std::nullopt : std::optional(head->work.request);
  for (const auto& [node, want] : wants_.set(request, wanted, turn.now)) send(node, want, turn);
}

// Beside its leader if there is room, for its blocks are there: colocated where the leader was, or where only its
// decode node is left, though another prefill node might take it.
Placement Gateway::placement(const GatewayRequest& request, const std::vector<NodeView>& views) const {
  const auto prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  const uint32_t output_tokens = request.work.output_tokens_max;
  if (request.beside) {
    std::vector<NodeView> near;
    std::ranges::copy_if(views, std::back_inserter(near), [&](const NodeView& view) {
      return view.node == request.beside->prefill || view.node == request.beside->decode;
    });
    const Placement beside = place_least_loaded({prompt_tokens, output_tokens, near, config_.affinity_tokens_max});
    if (nodes_of(beside)) return beside;
  }
  return place_least_loaded({prompt_tokens, output_tokens, views, config_.affinity_tokens_max});
}

void Gateway::dispatch(GatewayRequest& request, const AttemptNodes& place, Turn& turn) {
  const GenerateRequest& given = request.work;
  count_wait(request, turn.now);
  ++request.attempts;
  request.waterfall.queue = turn.now - request.arrived;
  RunningAttempt running;
  running.attempt = {given.request, {boot_, ++transfers_}, Epoch{request.attempts}};
  running.prefill.node = place.prefill;
  running.decode.node = place.decode;
  running.prefill.open = !place.colocated();
  request.waterfall.colocated = place.colocated();
  running.progress_by = turn.now + config_.progress_max;
  running.last_token_at = turn.now;
  if (requests_.running() == 0) moved_at_ = turn.now;
  requests_.start_head(running);
  affinity_.placed(request.prefix, place.prefill, place.decode);
  for (const PeerId node : {place.prefill, place.decode}) wants_.forget(node);

  const Hello& prefill = *nodes_.hello(place.prefill);
  const Hello& decode = *nodes_.hello(place.decode);
  const auto prompt_tokens = checked_cast<uint32_t>(given.prompt.size());
  const auto blocks = [](uint64_t tokens, const Hello& node) {
    return checked_cast<uint32_t>((tokens - 1) / node.block_tokens + 1);
  };
  if (!place.colocated())
    nodes_.place(place.prefill, given.request, {blocks(prompt_tokens, prefill), prompt_tokens, transfers_});
  const uint64_t at_first = tokens_at_first(prompt_tokens, given.output_tokens_max, decode.growth_margin);
  nodes_.place(place.decode, given.request,
               {blocks(at_first, decode), place.colocated() ? prompt_tokens : 0, transfers_});

  Work work;
  work.attempt = running.attempt;
  work.prompt = given.prompt;
  work.output_tokens_max = given.output_tokens_max;
  work.sampling = given.sampling;
  work.tenant = given.tenant;
  work.public_prefix = given.public_prefix;
  work.stop_tokens = given.stop_tokens;
  work.digest_logits = given.digest_logits;
  work.logprob_count = given.logprob_count;
  work.score_prompt = given.score_prompt;
  work.trace = given.trace;
  if (!place.colocated()) send(place.prefill, Prefill{work, decode.boot}, turn);
  send(place.decode, Reserve{std::move(work), prefill.boot}, turn);
}

}  // namespace spillway
