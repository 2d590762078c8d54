#include "decode_node/decode_node.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

// A Cancel or Failed may overtake its Reserve by as much as the queue between two processes holds.
constexpr uint32_t kEndedPerRequest = 4;

}  // namespace

DecodeNode::DecodeNode(const DecodeConfig& config, Engine& engine, KvReceiver& receiver)
    : config_(config),
      engine_(engine),
      receiver_(receiver),
      peers_({.peers_max = config.peers_max,
              .bulk_role = Role::kPrefill,
              .bulk_retry = config.bulk_retry,
              .blocks_total = engine.cache().config().slot_count}),
      requests_(config.requests_max),
      ended_(config.requests_max * kEndedPerRequest),
      watch_(config.stall_after),
      transfer_watch_(config.stall_after) {
  CHECK(config.vocab > 0 && config.vocab <= engine.config().vocab);
  CHECK(config.lease > Duration{0});
}

size_t DecodeNode::effects_max() const {
  // Per request a CloseTransfer and two messages (both ends told), per peer one Load and one bulk job, one step,
  // one probe, one Yield.
  // A step's scores leave in pieces, of which each share may have one that is not full.
  const BatchLimits& step = engine_.config().limits;
  const size_t scores = config_.colocates ? size_t{step.tokens_max} / kScoredTokensMax + step.sequences_max : 0;
  return scores + size_t{3} * config_.requests_max + size_t{2} * config_.peers_max + 6;
}

void DecodeNode::on(const DecodeEvent& event, TimePoint now, BoundedVector<DecodeEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  std::visit([&](const auto& one) { handle(one, turn); }, event);
  finish_turn(turn);
}

void DecodeNode::on_deadline(TimePoint now, BoundedVector<DecodeEffect>& effects) {
  CHECK(effects.room() >= effects_max());
  Turn turn{now, effects};
  for (const RequestId id : requests_.select([&](const DecodeRequest& one) { return one.lease_until <= now; })) {
    DecodeRequest& request = *requests_.find(id);
    const Error error = request.state == State::kReserved
                            ? Error{ErrorCode::kPeerLost, "the prefill node never connected to the decode node"}
                            : Error{ErrorCode::kDeadline, fmt::format("no sign of the prefill node for {:.0f} ms",
                                                                      milliseconds(config_.lease))};
    fail_both(request, error, turn);
  }
  peers_.end_wants(turn.now);
  std::vector<ConnectBulk> links;
  peers_.retry_bulk(now, links);
  for (ConnectBulk& link : links) emit(std::move(link), turn);
  finish_turn(turn);
}

TimePoint DecodeNode::next_deadline() const {
  TimePoint earliest =
      std::min({peers_.next_deadline(), watch_.next_deadline(), transfer_watch_.next_deadline(), yield_again_at_});
  for (const auto& [id, request] : requests_.records()) earliest = std::min(earliest, request.lease_until);
  return earliest;
}

// What may follow from any event: a step to compute, a load to announce.
void DecodeNode::finish_turn(Turn& turn) {
  if (std::optional<StepPlan> plan = engine_.plan()) {
    for (const StepShare& share : plan->shares) {
      DecodeRequest* const request = requests_.find(share.sequence);
      if (request != nullptr && !request->first_step) request->first_step = turn.now;
    }
    // One that computes a prompt may take long: its layers are its signs of life.
    plan->announce_layers = plan->tokens.size() > plan->shares.size();
    watch_.moved(turn.now);
    ++totals_.steps;
    totals_.step_tokens += plan->tokens.size();
    totals_.step_sequences += plan->shares.size();
    emit(std::move(*plan), turn);
  }
  ask_back(turn);
  watch_.look(turn.now);
  if (transfer_watch_.look(turn.now, receiver_.open_transfers() > 0)) emit(TransferProbe{}, turn);
  const uint32_t available = engine_.cache().available();
  const Load load{.blocks_free = available,
                  .running_sequences = engine_.open_sequences(),
                  .queued_prompt_tokens = engine_.queued_prompt_tokens(),
                  .preempted_sequences = engine_.preempted(),
                  .preemptions = engine_.counters().preemptions,
                  .recomputed_tokens = engine_.counters().recomputed_tokens,
                  .blocks_cached = available - engine_.cache().pool().free_count(),
                  .totals = totals_,
                  .stalled_ms = watch_.stalled_ms(),
                  .draining = draining_,
                  .transfer_stalled_ms = transfer_watch_.stalled_ms()};
  const uint32_t sequences_free = std::min(engine_.sequences_free(), config_.requests_max - requests_.size());
  for (const auto& [gateway, theirs] : peers_.loads_to_tell(load, sequences_free)) send(gateway, theirs, turn);
}

// All slots are those of reservations and those of sequences that wait for more. The youngest reservation gives way:
// its prompt may take minutes yet, and what decodes has clients that read. One at a time, for each brings many slots.
void DecodeNode::ask_back(Turn& turn) {
  const bool stuck = engine_.step_in_flight() == nullptr && engine_.preempted() > 0;
  if (!stuck || turn.now >= yield_again_at_) yield_again_at_ = kNever;
  if (!stuck || yield_again_at_ != kNever) return;
  uint32_t receiving = 0;
  const DecodeRequest* youngest = nullptr;
  uint64_t arrival = 0;
  for (const auto& [id, request] : requests_.records()) {
    if (request.state != State::kReceiving) continue;
    ++receiving;
    const uint64_t its = engine_.sequence(*request.sequence).arrival;
    if (request.done || (youngest != nullptr && its < arrival)) continue;
    youngest = &request;
    arrival = its;
  }
  if (youngest == nullptr || receiver_.open_transfers() > receiving) return;  // slots are on their way back
  yield_again_at_ = turn.now + config_.yield_again;
  send_prefill(*youngest, Yield{youngest->attempt}, turn);
}

void DecodeNode::handle(const PeerUp& up, Turn& turn) {
  if (std::optional<ConnectBulk> link = peers_.add(up)) emit(std::move(*link), turn);
  if (!peers_.is(up.peer, Role::kPrefill)) return;
  const auto waits = [&](const DecodeRequest& one) {
    return one.state == State::kReserved && peers_.is_process(up.peer, one.prefill);
  };
  for (const RequestId id : requests_.select(waits)) start_receiving(*requests_.find(id), up.peer, turn);
}

void DecodeNode::handle(const PeerMessage& message, Turn& turn) {
  if (peers_.hello(message.peer) == nullptr) return;
  std::visit([&](const auto& one) { on_message(message.peer, one, turn); }, message.message);
}

void DecodeNode::handle(const PeerGone& gone, Turn& turn) {
  const Hello* const hello = peers_.hello(gone.peer);
  if (hello == nullptr) return;
  const Role role = hello->role;
  const BootId boot = hello->boot;
  const Error error{ErrorCode::kPeerLost, fmt::format("{} is gone: {}", process_name(*hello), gone.reason)};
  if (std::optional<DisconnectBulk> link = peers_.remove(gone.peer)) emit(*link, turn);
  const auto hit = [&](const DecodeRequest& one) {
    if (role == Role::kGateway) return one.gateway == gone.peer;
    return role == Role::kPrefill && one.prefill == boot && one.state != State::kDecoding;
  };
  for (const RequestId id : requests_.select(hit)) fail_both(*requests_.find(id), error, turn);
}

void DecodeNode::handle(const LayerDone& done, Turn& turn) {
  const StepPlan* const step = engine_.step_in_flight();
  if (step != nullptr && step->step == done.step) watch_.moved(turn.now);
}

void DecodeNode::handle(const StepDone& done, Turn& turn) {
  const StepPlan* const step = engine_.step_in_flight();
  if (step == nullptr || step->step != done.step) return;
  watch_.ended();
  std::vector<EngineToken> tokens;
  engine_.on(done, tokens);
  for (const ScoredTokens& scored : done.scored) {
    if (DecodeRequest* const request = requests_.find(scored.sequence)) take_scores(*request, scored, turn);
  }
  for (const EngineToken& token : tokens) {
    if (DecodeRequest* const request = requests_.find(token.sequence)) take_token(*request, token, done.elapsed, turn);
  }
}

void DecodeNode::handle(const PartsLanded& landed, Turn& turn) {
  transfer_watch_.heard(turn.now);
  const KvReceiver::Landing landing = receiver_.on(landed);
  if (landing == KvReceiver::Landing::kIgnored) return;
  DecodeRequest* const request = requests_.find(landed.transfer);
  CHECK(request != nullptr);
  if (landing == KvReceiver::Landing::kCorrupt) {
    fail_both(*request,
              {ErrorCode::kCorrupt,
               fmt::format("block {} layers {}..{} arrived with another digest than was sent", landed.block_index,
                           landed.layers.first, landed.layers.first + landed.layers.count - 1)},
              turn);
    return;
  }
  if (!request->first_landed) request->first_landed = turn.now;
  request->last_landed = turn.now;
  request->lease_until = std::max(request->lease_until, turn.now + config_.lease);
  commit_if_complete(*request, turn);
}

void DecodeNode::handle(const TransferClosed& closed, Turn& turn) {
  transfer_watch_.heard(turn.now);
  receiver_.on(closed);
}

void DecodeNode::handle(const BulkReady& ready, Turn& turn) {
  transfer_watch_.heard(turn.now);
  peers_.on(ready);
}

void DecodeNode::handle(const BulkLost& lost, Turn& turn) {
  transfer_watch_.heard(turn.now);
  if (!peers_.on(lost, turn.now)) return;
  const auto depends = [&](const DecodeRequest& one) {
    return one.state == State::kReceiving && peers_.is_process(lost.peer, one.prefill) &&
           !receiver_.complete(one.attempt.transfer);
  };
  const std::string prefill = process_name(*peers_.hello(lost.peer));
  const Error error{ErrorCode::kPeerLost, fmt::format("the bulk link from {} broke", prefill)};
  for (const RequestId id : requests_.select(depends)) fail_both(*requests_.find(id), error, turn);
}

void DecodeNode::check_conservation() const {
  engine_.check_conservation();
  receiver_.check_conservation();
  requests_.check_conservation();
  uint32_t receiving = 0;
  for (const auto& [id, request] : requests_.records()) {
    CHECK(request.sequence && !ended_.contains(id, request.attempt.epoch));
    CHECK((request.state == State::kDecoding) == (request.lease_until == kNever));
    CHECK(request.prefill != config_.boot || (request.state == State::kDecoding && !request.done));
    if (request.state != State::kReceiving) continue;
    CHECK(receiver_.knows(request.attempt.transfer));
    CHECK(!(request.done && receiver_.complete(request.attempt.transfer)));  // else it would be committed
    ++receiving;
  }
  CHECK(engine_.open_sequences() == requests_.size());
  CHECK(receiver_.open_transfers() >= receiving);
}

}  // namespace spillway
