// How long a request may wait for what, and what counts as progress meanwhile.
#include <fmt/format.h>

#include <algorithm>

#include "gateway/gateway.h"

namespace spillway {

void Gateway::on_deadline(TimePoint now, BoundedVector<GatewayEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  nodes_.end_refusals(now);
  const auto due = [&](const GatewayRequest& one) {
    return (one.running ? one.running->progress_by : one.queue_until) <= now;
  };
  for (const RequestId id : requests_.select(due)) {
    GatewayRequest* const request = requests_.find(id);  // or it went with the choice that it waited for
    if (request != nullptr) fail_request(*request, {ErrorCode::kDeadline, why_due(*request, now)}, turn);
  }
  dispatch_queue(turn);
  let_nodes_leave(turn);
}

std::string Gateway::why_due(const GatewayRequest& request, TimePoint now) const {
  if (request.held)
    return fmt::format("it waited for the first choice of its prompt for {:.0f} s, the limit: send less at once",
                       seconds(config_.queue_wait_max));
  if (!request.running) {
    const GatewayHealth state = health(now);
    return fmt::format("it waited in the queue for {:.0f} s, the limit: {}", seconds(config_.queue_wait_max),
                       state.ready() ? "all nodes are busy; send less at once or start more nodes (--prefill, --decode)"
                                     : fmt::format("{}; the log says why", fmt::join(state.reasons, "; ")));
  }
  const bool at_prefill = request.running->tokens.next_index() == 0;
  const PeerId node = at_prefill ? request.running->prefill.node : request.running->decode.node;
  if (!at_prefill && now - request.running->last_token_at >= config_.queue_wait_max) {
    return fmt::format(
        "{} found no KV blocks to go on with this request for {:.0f} s, the limit: send less at once, "
        "or raise --device-memory or --growth-margin",
        nodes_.name(node, Role::kDecode), seconds(config_.queue_wait_max));
  }
  return fmt::format(
      "{} made no progress with this request for {:.0f} s, the limit: its log may say why; steps that take so long "
      "need more --threads or fewer --chunk-tokens",
      nodes_.name(node, at_prefill ? Role::kPrefill : Role::kDecode), seconds(config_.progress_max));
}

TimePoint Gateway::next_deadline() const {
  const TimePoint earliest = std::min(requests_.next_deadline(), wants_.next_deadline());
  // A pause matters only to those that wait for its end.
  return requests_.queued() > 0 ? std::min(earliest, nodes_.next_deadline()) : earliest;
}

// Prompts are computed in order of arrival: what P did for one is progress of all that wait there. So is what D did
// for one where it has preempted others, which come back in that order; not without end, for D might have lost one.
void Gateway::node_moved(PeerId node, TimePoint now) {
  moved_at_ = now;
  const bool preempts = nodes_.preempts(node);
  const auto waits = [&](const GatewayRequest& one) {
    if (!one.running) return false;
    if (one.running->tokens.next_index() == 0) return one.running->prefill.node == node;
    return preempts && one.running->decode.node == node;
  };
  for (const RequestId id : requests_.select(waits)) {
    RunningAttempt& running = *requests_.find(id)->running;
    const TimePoint end = running.tokens.next_index() == 0 ? kNever : running.last_token_at + config_.queue_wait_max;
    running.progress_by = std::min(now + config_.progress_max, end);
  }
}

}  // namespace spillway
