#include "gateway/gateway.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

constexpr uint32_t kRefusalDoublings = 5;

// What a node refuses the gateway has checked before: it is a fault of the server, or of how its nodes were set up, and
// not the client's.
ErrorCode code_for_client(ErrorCode of_node) {
  if (of_node == ErrorCode::kInvalidArgument) return ErrorCode::kInternal;
  if (of_node == ErrorCode::kUnsupported) return ErrorCode::kUnavailable;
  return of_node;
}

}  // namespace

Gateway::Gateway(const GatewayConfig& config, BootId boot)
    : config_(config),
      boot_(boot),
      nodes_(config.nodes_max, config.prefill_steps_ahead),
      affinity_(config.affinity_entries_max) {
  CHECK(config.queue_max > 0 && config.running_max > 0 && config.attempts_max > 0);
}

size_t Gateway::effects_max() const {
  // Each request may fail (two Cancels, one error) or leave the queue; one stream lets go of all that waited; each node
  // hears of another, is let go, and of two wants.
  return size_t{3} * (config_.running_max + config_.queue_max + config_.held_max) + config_.ahead_max +
         size_t{4} * config_.nodes_max + 8;
}

void Gateway::on(const GatewayEvent& event, TimePoint now, BoundedVector<GatewayEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  std::visit([&](const auto& one) { handle(one, turn); }, event);
  dispatch_queue(turn);
  let_nodes_leave(turn);
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
  const Error error{ErrorCode::kPeerLost,
                    fmt::format("{} is gone{}: {}", nodes_.name(gone.peer, hello->role),
                                nodes_.drains(gone.peer) ? " before it had drained" : "", gone.reason)};
  nodes_.remove(gone.peer);
  affinity_.forget(gone.peer);
  wants_.forget(gone.peer);
  const auto on_it = [&](const GatewayRequest& one) {
    return one.running && ((one.running->prefill.open && one.running->prefill.node == gone.peer) ||
                           (one.running->decode.open && one.running->decode.node == gone.peer));
  };
  for (const RequestId id : requests_.select(on_it)) leg_lost(*requests_.find(id), gone.peer, error, turn);
}

void Gateway::handle(const ClientGone& gone, Turn& turn) {
  GatewayRequest* const request = requests_.find(gone.request);
  if (request == nullptr) return;
  ++counters_.cancelled;
  count_wait(*request, turn.now);
  if (request->running) cancel_open_legs(*request, turn);
  requests_.erase(*request, turn.now + config_.queue_wait_max);
}

void Gateway::handle(const StopFound& found, Turn& turn) {
  GatewayRequest* const request = requests_.find(found.request);
  if (request == nullptr || !request->running) return;
  cancel_open_legs(*request, turn);
  end(*request, FinishReason::kStop, turn);
}

// A node that drains waits for this word: behind it comes no work, and nothing that it sent before it is unread.
void Gateway::let_nodes_leave(Turn& turn) {
  for (const PeerId node : nodes_.leaving()) {
    const auto needs_it = [&](const GatewayRequest& one) {
      if (!one.running) return false;
      const RunningAttempt& running = *one.running;
      return (running.decode.open && running.decode.node == node) ||
             (running.prefill.open && running.prefill.node == node && !running.decoding);
    };
    if (!requests_.select(needs_it).empty()) continue;
    nodes_.let_go(node);
    send(node, MayLeave{}, turn);
  }
}

GatewayRequest* Gateway::find(const Attempt& attempt) {
  GatewayRequest* const request = requests_.find(attempt.request);
  return request != nullptr && request->running && request->running->attempt == attempt ? request : nullptr;
}

void Gateway::on_message(PeerId from, const Load& load, Turn& turn) {
  const NodeTable::Moved moved = nodes_.on(from, load);
  if (moved.prompts) node_moved(from, turn.now);
  // What waits here may wait for others' requests, which move.
  if (moved.anything && requests_.running() == 0) moved_at_ = turn.now;
}

void Gateway::on_message(PeerId from, const Token& token, Turn& turn) {
  GatewayRequest* const request = find(token.attempt);
  if (request == nullptr) return;
  RunningAttempt& running = *request->running;
  RunningAttempt::Leg& leg = token.index == 0 ? running.first_leg() : running.decode;
  if (!leg.open || leg.node != from) return;
  const uint32_t output_max = request->work.output_tokens_max;
  if (token.index >= output_max || (token.index + 1 == output_max && token.finish == FinishReason::kNone)) {
    fail_request(*request,
                 {ErrorCode::kCorrupt, fmt::format("{} did not end at token {} of {}", nodes_.name(from, Role::kDecode),
                                                   token.index, output_max)},
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
  const bool of_decode = &leg == &running.decode;
  if (of_decode) running.decoding = true;
  if (token.index == 0) {  // its prompt is computed; what P still holds is in its Load
    of_decode ? nodes_.prefilled(from, token.attempt.request) : nodes_.release(from, token.attempt.request);
    node_moved(from, turn.now);
  } else if (nodes_.preempts(from)) {
    node_moved(from, turn.now);
  }
  stream_ready_tokens(*request, turn);
}

void Gateway::on_message(PeerId from, const Failed& failed, Turn& turn) {
  GatewayRequest* const request = find(failed.attempt);
  if (request == nullptr) return;
  RunningAttempt& running = *request->running;
  const bool is_prefill = running.prefill.open && running.prefill.node == from;
  RunningAttempt::Leg& leg = is_prefill ? running.prefill : running.decode;
  if (!leg.open || leg.node != from) return;
  const std::string name = nodes_.name(from, is_prefill ? Role::kPrefill : Role::kDecode);
  if (failed.code != ErrorCode::kNoSpace || running.decoding) {
    leg_lost(*request, from, {code_for_client(failed.code), fmt::format("{}: {}", name, failed.detail)}, turn);
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
  request->queue_until += turn.now - running.last_token_at;  // a long prompt that had to yield did not wait
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
  requests_.erase(request, turn.now + config_.queue_wait_max);
}

// With it go those that wait for it: an answer that lacks one of its choices is none.
void Gateway::fail_request(GatewayRequest& request, const Error& error, Turn& turn) {
  ++counters_.errors[error.code];
  if (error.code != ErrorCode::kQueueFull) count_wait(request, turn.now);
  if (request.running) cancel_open_legs(request, turn);
  const RequestId id = request.work.request;
  turn.effects.push_back(StreamError{id, error});
  const auto waits_for_it = [&](const GatewayRequest& one) { return one.held && one.work.leader == id; };
  for (const RequestId follower : requests_.select(waits_for_it)) fail_request(*requests_.find(follower), error, turn);
  requests_.erase(request, turn.now + config_.queue_wait_max);
}

void Gateway::send(PeerId to, Message message, Turn& turn) {
  turn.effects.push_back(SendMessage{to, std::move(message)});
}

}  // namespace spillway
