#include "gateway/gateway.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/check.h"
#include "scheduler/placement.h"

namespace spillway {
namespace {

constexpr uint32_t kRefusalDoublings = 5;

// Names the node as people know it.
std::string node_name(const Hello* hello, Role role) {
  if (hello == nullptr || hello->name.empty()) return fmt::format("a {} node", role_name(role));
  return hello->name;
}

}  // namespace

Gateway::Gateway(const GatewayConfig& config, BootId boot)
    : config_(config), boot_(boot), nodes_(config.nodes_max, config.prefill_steps_ahead) {
  CHECK(config.queue_max > 0 && config.running_max > 0 && config.attempts_max > 0);
}

size_t Gateway::effects_max() const {
  // Each request may fail (two Cancels, one error) or leave the queue; one stream lets go of all that waited; each node
  // hears of another.
  return size_t{3} * (config_.running_max + config_.queue_max) + config_.ahead_max + config_.nodes_max + 8;
}

void Gateway::on(const GatewayEvent& event, TimePoint now, BoundedVector<GatewayEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  std::visit([&](const auto& one) { handle(one, turn); }, event);
  dispatch_queue(turn);
}

void Gateway::on_deadline(TimePoint now, BoundedVector<GatewayEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  nodes_.end_refusals(now);
  const auto due = [&](const GatewayRequest& one) {
    return (one.running ? one.running->progress_by : one.queue_until) <= now;
  };
  for (const RequestId id : requests_.select(due)) {
    GatewayRequest& request = *requests_.find(id);
    fail_request(request, {ErrorCode::kDeadline, why_due(request)}, turn);
  }
  dispatch_queue(turn);
}

std::string Gateway::why_due(const GatewayRequest& request) const {
  if (!request.running) {
    return fmt::format("it waited in the queue for {:.0f} s, the limit: {}", seconds(config_.queue_wait_max),
                       ready() ? "all nodes are busy; send less at once or start more nodes (--prefill, --decode)"
                               : ready().error().detail + "; the log says why");
  }
  const bool at_prefill = request.running->tokens.next_index() == 0;
  const PeerId node = at_prefill ? request.running->prefill.node : request.running->decode.node;
  return fmt::format(
      "{} made no progress with this request for {:.0f} s, the limit: its log may say why; steps that take so long "
      "need more --threads or fewer --chunk-tokens",
      node_name(nodes_.hello(node), at_prefill ? Role::kPrefill : Role::kDecode), seconds(config_.progress_max));
}

TimePoint Gateway::next_deadline() const {
  const TimePoint earliest = requests_.next_deadline();
  // A pause matters only to those that wait for its end.
  return requests_.queued() > 0 ? std::min(earliest, nodes_.next_deadline()) : earliest;
}

// Decode nodes accept, prefill nodes connect: whoever comes later, each prefill node learns of each decode node.
void Gateway::handle(const PeerUp& up, Turn& turn) {
  if (auto added = nodes_.add(up.peer, up.hello); !added)
    return send(up.peer, HelloRefused{added.error().detail}, turn);
  if (up.hello.role == Role::kDecode) {
    for (const PeerId prefill : nodes_.with_role(Role::kPrefill)) {
      send(prefill, PeerInfo{up.hello.boot, up.hello.control_endpoint}, turn);
    }
  } else {
    for (const PeerId decode : nodes_.with_role(Role::kDecode)) {
      const Hello& hello = *nodes_.hello(decode);
      send(up.peer, PeerInfo{hello.boot, hello.control_endpoint}, turn);
    }
  }
}

void Gateway::handle(const PeerMessage& message, Turn& turn) {
  if (!nodes_.knows(message.peer)) return;
  std::visit([&](const auto& one) { on_message(message.peer, one, turn); }, message.message);
}

void Gateway::handle(const PeerGone& gone, Turn& turn) {
  const Hello* const hello = nodes_.hello(gone.peer);
  if (hello == nullptr) return;
  const Error error{ErrorCode::kPeerLost, fmt::format("{} is gone: {}", node_name(hello, hello->role), gone.reason)};
  nodes_.remove(gone.peer);
  const auto on_it = [&](const GatewayRequest& one) {
    return one.running && ((one.running->prefill.open && one.running->prefill.node == gone.peer) ||
                           (one.running->decode.open && one.running->decode.node == gone.peer));
  };
  for (const RequestId id : requests_.select(on_it)) leg_lost(*requests_.find(id), gone.peer, error, turn);
}

void Gateway::handle(const RequestArrived& arrived, Turn& turn) {
  const GenerateRequest& work = arrived.work;
  ++counters_.requests;
  CHECK(!work.prompt.empty() && work.output_tokens_max > 0);
  const auto prompt_tokens = checked_cast<uint32_t>(work.prompt.size());
  Result<void> accepted = nodes_.could_fit(prompt_tokens, work.output_tokens_max);
  if (accepted && requests_.queued() >= config_.queue_max) {
    accepted =
        fail(ErrorCode::kQueueFull,
             fmt::format("{} requests wait already, the most this gateway keeps; try again later", requests_.queued()));
  }
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
  requests_.insert(std::move(request));
}

void Gateway::handle(const ClientGone& gone, Turn& turn) {
  GatewayRequest* const request = requests_.find(gone.request);
  if (request == nullptr) return;
  ++counters_.cancelled;
  if (request->running) cancel_open_legs(*request, turn);
  requests_.erase(*request);
}

void Gateway::handle(const StopFound& found, Turn& turn) {
  GatewayRequest* const request = requests_.find(found.request);
  if (request == nullptr || !request->running) return;
  cancel_open_legs(*request, turn);
  end(*request, FinishReason::kStop, turn);
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
    const std::vector<NodeView> views = nodes_.views(uint64_t{prompt_tokens} + work.output_tokens_max, turn.now);
    const Placement placement = place(*head, views);
    const auto* const place = std::get_if<Disaggregate>(&placement);
    if (place == nullptr) return;  // busy, or a role is missing: until a Load, a PeerUp or the deadline
    dispatch(*head, *place, turn);
  }
}

// Beside its leader if there is room, for its blocks are there.
Placement Gateway::place(const GatewayRequest& request, const std::vector<NodeView>& views) {
  const auto prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  const uint32_t output_tokens = request.work.output_tokens_max;
  if (request.beside) {
    std::vector<NodeView> near;
    std::ranges::copy_if(views, std::back_inserter(near), [&](const NodeView& view) {
      return view.node == request.beside->prefill || view.node == request.beside->decode;
    });
    const Placement beside = place_least_loaded({prompt_tokens, output_tokens, near});
    if (std::holds_alternative<Disaggregate>(beside)) return beside;
  }
  return place_least_loaded({prompt_tokens, output_tokens, views});
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
  requests_.start_head(running);

  const Hello& prefill = *nodes_.hello(place.prefill);
  const Hello& decode = *nodes_.hello(place.decode);
  const auto prompt_tokens = checked_cast<uint32_t>(given.prompt.size());
  const auto blocks = [](uint32_t tokens, const Hello& node) { return (tokens - 1) / node.block_tokens + 1; };
  nodes_.place(place.prefill, given.request, {blocks(prompt_tokens, prefill), prompt_tokens});
  nodes_.place(place.decode, given.request, {blocks(prompt_tokens + given.output_tokens_max, decode), 0});

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
  send(place.prefill, Prefill{work, decode.boot}, turn);
  send(place.decode, Reserve{std::move(work), prefill.boot}, turn);
}

GatewayRequest* Gateway::find(const Attempt& attempt) {
  GatewayRequest* const request = requests_.find(attempt.request);
  return request != nullptr && request->running && request->running->attempt == attempt ? request : nullptr;
}

void Gateway::on_message(PeerId from, const Load& load, Turn& turn) {
  if (nodes_.on(from, load)) prefill_moved(from, turn.now);
}

// Prompts are computed in order of arrival: what P did for one is progress of all that wait there.
void Gateway::prefill_moved(PeerId prefill, TimePoint now) {
  const auto waits = [&](const GatewayRequest& one) {
    return one.running && one.running->prefill.node == prefill && one.running->tokens.next_index() == 0;
  };
  for (const RequestId id : requests_.select(waits)) {
    requests_.find(id)->running->progress_by = now + config_.progress_max;
  }
}

void Gateway::on_message(PeerId from, const Token& token, Turn& turn) {
  GatewayRequest* const request = find(token.attempt);
  if (request == nullptr) return;
  RunningAttempt& running = *request->running;
  RunningAttempt::Leg& leg = token.index == 0 ? running.prefill : running.decode;
  if (!leg.open || leg.node != from) return;
  const uint32_t output_max = request->work.output_tokens_max;
  if (token.index >= output_max || (token.index + 1 == output_max && token.finish == FinishReason::kNone)) {
    fail_request(
        *request,
        {ErrorCode::kCorrupt, fmt::format("{} did not end at token {} of {}",
                                          node_name(nodes_.hello(from), Role::kDecode), token.index, output_max)},
        turn);
    return;
  }
  switch (running.tokens.put(token, config_.ahead_max)) {
    case TokenOrder::Put::kDoubled: return;
    case TokenOrder::Put::kOverflow:
      fail_request(*request,
                   {ErrorCode::kInternal,
                    fmt::format("token {} came but token {} did not", token.index, running.tokens.next_index())},
                   turn);
      return;
    case TokenOrder::Put::kTaken: break;
  }
  if (token.index == 0) {
    nodes_.release(from, request->work.request);  // P computes it no more; what it still holds is in its Load
    prefill_moved(from, turn.now);
  } else {
    nodes_.spoke(from, request->work.request);
    running.decoding = true;
  }
  stream_ready_tokens(*request, turn);
}

void Gateway::on_message(PeerId from, const Failed& failed, Turn& turn) {
  GatewayRequest* const request = find(failed.attempt);
  if (request == nullptr) return;
  RunningAttempt& running = *request->running;
  const bool is_prefill = running.prefill.node == from;
  RunningAttempt::Leg& leg = is_prefill ? running.prefill : running.decode;
  if (!leg.open || leg.node != from) return;
  const std::string name = node_name(nodes_.hello(from), is_prefill ? Role::kPrefill : Role::kDecode);
  if (failed.code != ErrorCode::kNoSpace || running.tokens.started()) {
    leg_lost(*request, from, {failed.code, fmt::format("{}: {}", name, failed.detail)}, turn);
    return;
  }
  // Longer each time, so that attempts_max spans about half a minute.
  const Duration pause = config_.refusal_pause * (1u << std::min(request->attempts - 1, kRefusalDoublings));
  nodes_.refused(from, turn.now + pause);
  close_leg(*request, leg);
  if (request->attempts >= config_.attempts_max) {
    fail_request(*request,
                 {failed.code, fmt::format("{}: {} (attempt {}, the last)", name, failed.detail, request->attempts)},
                 turn);
    return;
  }
  cancel_open_legs(*request, turn);
  requests_.requeue(*request);
}

// One node of the attempt cannot go on. P is of no use any more once D decodes.
void Gateway::leg_lost(GatewayRequest& request, PeerId node, const Error& error, Turn& turn) {
  RunningAttempt& running = *request.running;
  const bool matters = running.decode.node == node || !running.decoding;
  close_leg(request, running.decode.node == node ? running.decode : running.prefill);
  if (matters) fail_request(request, error, turn);
}

void Gateway::close_leg(GatewayRequest& request, RunningAttempt::Leg& leg) {
  leg.open = false;
  nodes_.release(leg.node, request.work.request);
}

void Gateway::cancel_open_legs(GatewayRequest& request, Turn& turn) {
  for (RunningAttempt::Leg* const leg : {&request.running->prefill, &request.running->decode}) {
    if (!leg->open) continue;
    send(leg->node, Cancel{request.running->attempt}, turn);
    close_leg(request, *leg);
  }
}

void Gateway::end(GatewayRequest& request, FinishReason finish, Turn& turn) {
  ++counters_.finished;
  turn.effects.push_back(StreamEnd{request.work.request, finish, request.waterfall});
  close_leg(request, request.running->prefill);
  close_leg(request, request.running->decode);
  requests_.erase(request);
}

void Gateway::fail_request(GatewayRequest& request, Error error, Turn& turn) {
  ++counters_.errors[error.code];
  if (request.running) cancel_open_legs(request, turn);
  turn.effects.push_back(StreamError{request.work.request, std::move(error)});
  requests_.erase(request);
}

void Gateway::send(PeerId to, Message message, Turn& turn) {
  turn.effects.push_back(SendMessage{to, std::move(message)});
}

GatewayCounters Gateway::counters() const {
  GatewayCounters counters = counters_;
  counters.queued = requests_.queued();
  counters.running = requests_.running();
  counters.prefill_nodes = nodes_.count(Role::kPrefill);
  counters.decode_nodes = nodes_.count(Role::kDecode);
  counters.blocks_total = nodes_.blocks_total();
  counters.blocks_free = nodes_.blocks_free();
  return counters;
}

Result<void> Gateway::ready() const {
  const bool prefill = nodes_.count(Role::kPrefill) > 0;
  const bool decode = nodes_.count(Role::kDecode) > 0;
  if (prefill && decode) return {};
  const char* const missing = prefill  ? "no decode node is"
                              : decode ? "no prefill node is"
                                       : "no prefill and no decode node are";
  return fail(ErrorCode::kUnavailable, fmt::format("{} connected", missing));
}

void Gateway::check_conservation() const {
  requests_.check_conservation();
  CHECK(requests_.queued() <= config_.queue_max + config_.running_max && requests_.running() <= config_.running_max);
  size_t open_legs = 0;
  std::map<RequestId, const RunningAttempt*> running;
  requests_.select([&](const GatewayRequest& one) {
    if (one.running) {
      running.emplace(one.work.request, &*one.running);
      open_legs += (one.running->prefill.open ? 1u : 0u) + (one.running->decode.open ? 1u : 0u);
    }
    return false;
  });
  const size_t shares = nodes_.check_shares([&](PeerId node, RequestId request) {
    const auto entry = running.find(request);
    if (entry == running.end()) return false;
    const RunningAttempt& one = *entry->second;
    return (one.prefill.open && one.prefill.node == node) || (one.decode.open && one.decode.node == node);
  });
  CHECK(shares <= open_legs);
}

}  // namespace spillway
