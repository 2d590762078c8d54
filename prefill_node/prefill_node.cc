#include "prefill_node/prefill_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

// A Grant or Cancel may overtake its Prefill by as much as the queue between two processes holds.
constexpr uint32_t kEndedPerRequest = 4;

}  // namespace

PrefillNode::PrefillNode(const PrefillConfig& config, Engine& engine, KvSender& sender)
    : config_(config),
      engine_(engine),
      sender_(sender),
      peers_({.peers_max = config.peers_max,
              .bulk_role = Role::kDecode,
              .bulk_retry = config.bulk_retry,
              .blocks_total = engine.cache().config().slot_count}),
      requests_(config.requests_max),
      ended_(config.requests_max * kEndedPerRequest),
      watch_(config.stall_after),
      transfer_watch_(config.stall_after) {
  CHECK(config.vocab > 0 && config.vocab <= engine.config().vocab);
  CHECK(config.lease > Duration{4} && config.hold_max > Duration{0});
}

size_t PrefillNode::effects_max() const {
  // Per request a Lease and two messages (both ends told), per peer one Load and one bulk job, the sends, one step,
  // one probe.
  // A step's scores leave in pieces, of which each share may have one that is not full.
  const BatchLimits& step = engine_.config().limits;
  return size_t{step.tokens_max} / kScoredTokensMax + step.sequences_max + size_t{3} * config_.requests_max +
         size_t{2} * config_.peers_max + sender_.config().sends_max + 5;
}

void PrefillNode::on(const PrefillEvent& event, TimePoint now, BoundedVector<PrefillEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  std::visit([&](const auto& one) { handle(one, turn); }, event);
  finish_turn(turn);
}

void PrefillNode::on_deadline(TimePoint now, BoundedVector<PrefillEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  for (const RequestId id : requests_.select([&](const PrefillRequest& one) { return one.hold_until <= now; })) {
    give_up_hold(*requests_.find(id), turn);
  }
  for (const RequestId id : requests_.select([&](const PrefillRequest& one) { return one.lease_due <= now; })) {
    PrefillRequest& request = *requests_.find(id);
    request.lease_due = now + config_.lease / 4;
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(config_.lease).count();
    send_decode(request, Lease{request.attempt, checked_cast<uint32_t>(ms)}, turn);
  }
  while (!early_grants_.empty() && early_grants_.front().expires <= now) early_grants_.pop_front();
  const double limit_ms = milliseconds(sender_.config().answer_max);
  const Error no_link{ErrorCode::kPeerLost, fmt::format("no bulk link to the decode node for {:.0f} ms", limit_ms)};
  for (const RequestId id : requests_.select([&](const PrefillRequest& one) { return one.link_until <= now; })) {
    fail_both(*requests_.find(id), no_link, turn);
  }
  const Error silent{ErrorCode::kPeerLost,
                     fmt::format("blocks sent to the decode node were not answered for {:.0f} ms", limit_ms)};
  for (const PeerId peer : sender_.give_up_silent(now)) {
    if (peers_.hello(peer) == nullptr) continue;  // its link was ended when it went
    emit(DisconnectBulk{peer}, turn);
    fail_streaming(peer, silent, turn);
  }
  peers_.end_wants(turn.now);
  std::vector<ConnectBulk> links;
  peers_.retry_bulk(now, links);
  for (ConnectBulk& link : links) emit(std::move(link), turn);
  finish_turn(turn);
}

TimePoint PrefillNode::next_deadline() const {
  TimePoint earliest = std::min(
      {peers_.next_deadline(), sender_.next_deadline(), watch_.next_deadline(), transfer_watch_.next_deadline()});
  if (!early_grants_.empty()) earliest = std::min(earliest, early_grants_.front().expires);
  for (const auto& [id, request] : requests_.records()) {
    earliest = std::min({earliest, request.lease_due, request.hold_until, request.link_until});
  }
  return earliest;
}

// What may follow from any event: parts to send, a step to compute, a load to announce.
void PrefillNode::finish_turn(Turn& turn) {
  jobs_.clear();
  sender_.plan(turn.now, jobs_);
  for (const SendParts& job : jobs_) emit(job, turn);
  if (std::optional<StepPlan> plan = engine_.plan()) {
    for (const StepShare& share : plan->shares) {
      PrefillRequest* const request = requests_.find(share.sequence);
      if (request != nullptr && !request->first_step) request->first_step = turn.now;
    }
    watch_.moved(turn.now);
    ++totals_.steps;
    totals_.step_tokens += plan->tokens.size();
    totals_.step_sequences += plan->shares.size();
    emit(std::move(*plan), turn);
  }
  watch_.look(turn.now);
  const bool moves_blocks = sender_.open_transfers() > 0 || sender_.sends_in_flight() > 0;
  if (transfer_watch_.look(turn.now, moves_blocks)) emit(TransferProbe{}, turn);
  const uint32_t available = engine_.cache().available();
  const Load load{.blocks_free = available,
                  .running_sequences = engine_.open_sequences(),
                  .queued_prompt_tokens = engine_.queued_prompt_tokens(),
                  .blocks_cached = available - engine_.cache().pool().free_count(),
                  .totals = totals_,
                  .stalled_ms = watch_.stalled_ms(),
                  .draining = draining_,
                  .transfer_stalled_ms = transfer_watch_.stalled_ms()};
  const uint32_t sequences_free = std::min(engine_.sequences_free(), config_.requests_max - requests_.size());
  for (const auto& [gateway, theirs] : peers_.loads_to_tell(load, sequences_free)) send(gateway, theirs, turn);
}

void PrefillNode::handle(const PeerUp& up, Turn& turn) {
  if (std::optional<ConnectBulk> link = peers_.add(up)) emit(std::move(*link), turn);
}

void PrefillNode::handle(const PeerMessage& message, Turn& turn) {
  if (peers_.hello(message.peer) == nullptr) return;
  std::visit([&](const auto& one) { on_message(message.peer, one, turn); }, message.message);
}

void PrefillNode::handle(const PeerGone& gone, Turn& turn) {
  const Hello* const hello = peers_.hello(gone.peer);
  if (hello == nullptr) return;
  const Role role = hello->role;
  const BootId boot = hello->boot;
  const Error error{ErrorCode::kPeerLost, fmt::format("{} is gone: {}", process_name(*hello), gone.reason)};
  if (std::optional<DisconnectBulk> link = peers_.remove(gone.peer)) emit(*link, turn);
  std::erase_if(early_grants_, [&](const EarlyGrant& one) { return one.from == gone.peer; });
  const auto hit = [&](const PrefillRequest& one) {
    return role == Role::kGateway ? one.gateway == gone.peer : role == Role::kDecode && one.decode == boot;
  };
  for (const RequestId id : requests_.select(hit)) fail_both(*requests_.find(id), error, turn);
}

void PrefillNode::handle(const LayerDone& done, Turn& turn) {
  const StepPlan* const step = engine_.step_in_flight();
  if (step == nullptr || step->step != done.step) return;
  watch_.moved(turn.now);
  offer_step({done.layer, 1});
}

void PrefillNode::handle(const StepDone& done, Turn& turn) {
  const StepPlan* const step = engine_.step_in_flight();
  if (step == nullptr || step->step != done.step) return;
  watch_.ended();
  // Whatever was not announced layer by layer.
  offer_step({0, checked_cast<uint16_t>(sender_.config().layer_count)});
  std::vector<EngineToken> tokens;
  engine_.on(done, tokens);
  for (const ScoredTokens& scored : done.scored) {
    if (PrefillRequest* const request = requests_.find(scored.sequence)) take_scores(*request, scored, turn);
  }
  for (const EngineToken& token : tokens) {
    if (PrefillRequest* const request = requests_.find(token.sequence)) take_token(*request, token, turn);
  }
}

void PrefillNode::handle(const PartsSent& sent, Turn& turn) {
  transfer_watch_.heard(turn.now);
  const std::optional<KvSender::Outcome> outcome = sender_.on(sent);
  if (!outcome || outcome->status == TransferStatus::kOk) return;
  PrefillRequest* const request = requests_.find(outcome->transfer);
  CHECK(request != nullptr);
  const bool refused = outcome->status == TransferStatus::kRefused;
  fail_both(
      *request,
      refused ? Error{ErrorCode::kUnavailable, "the decode node takes no more blocks of this attempt"}
              : Error{ErrorCode::kPeerLost, fmt::format("the bulk link to {} broke", peers_.name_of(request->decode))},
      turn);
}

void PrefillNode::handle(const BulkReady& ready, Turn& turn) {
  transfer_watch_.heard(turn.now);
  peers_.on(ready);
  const auto waits = [&](const PrefillRequest& one) {
    return one.first_block && !one.streaming && !one.ended && peers_.is_process(ready.peer, one.decode);
  };
  for (const RequestId id : requests_.select(waits)) start_streaming(*requests_.find(id), ready.peer);
}

void PrefillNode::handle(const BulkLost& lost, Turn& turn) {
  transfer_watch_.heard(turn.now);
  if (!peers_.on(lost, turn.now)) return;
  const std::string decode = process_name(*peers_.hello(lost.peer));
  fail_streaming(lost.peer, {ErrorCode::kPeerLost, fmt::format("the bulk link to {} broke", decode)}, turn);
}

// What still depends on the bulk link to `to`.
void PrefillNode::fail_streaming(PeerId to, const Error& error, Turn& turn) {
  const auto depends = [&](const PrefillRequest& one) {
    return one.streaming && peers_.is_process(to, one.decode) && !sender_.all_sent(one.attempt.transfer);
  };
  for (const RequestId id : requests_.select(depends)) fail_both(*requests_.find(id), error, turn);
}

void PrefillNode::check_conservation() const {
  engine_.check_conservation();
  sender_.check_conservation();
  requests_.check_conservation();
  CHECK(early_grants_.size() <= config_.requests_max);
  uint32_t computing = 0;
  uint32_t sending = 0;
  for (const auto& [id, request] : requests_.records()) {
    CHECK(!ended_.contains(id, request.attempt.epoch));
    if (!request.holding()) ++computing;
    if (!request.ended) ++sending;
    CHECK(request.holding() == (request.hold_until != kNever));
    CHECK(request.first_block || request.lease_due == kNever);
    CHECK(sender_.knows(request.attempt.transfer) == !request.ended);
    CHECK(!request.done_sent || (request.holding() && request.first_block));
  }
  CHECK(engine_.open_sequences() == computing);
  CHECK(sender_.open_transfers() == sending);
}

}  // namespace spillway
