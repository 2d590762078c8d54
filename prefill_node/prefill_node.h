#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <variant>
#include <vector>

#include "common/bounded_vector.h"
#include "common/clock.h"
#include "engine/compute_job.h"
#include "engine/engine.h"
#include "engine/step_watch.h"
#include "prefill_node/prefill_request.h"
#include "transfer/attempt_log.h"
#include "transfer/attempt_table.h"
#include "transfer/control_channel.h"
#include "transfer/kv_sender.h"
#include "transfer/messages.h"
#include "transfer/peer_table.h"
#include "transfer/transfer_job.h"
#include "transfer/transfer_watch.h"

namespace spillway {

struct PrefillConfig {
  uint32_t requests_max = 0;                     // attempts held at once; also Grants that wait for their Prefill
  Duration lease = std::chrono::seconds(5);      // what D is asked to hold; renewed every lease / 4
  Duration hold_max = std::chrono::seconds(10);  // from token 0 until Committed; then let go
  uint32_t vocab = 0;                            // prompt ids are below it; at most EngineConfig::vocab
  uint32_t peers_max = kPeersMax;
  Duration bulk_retry = std::chrono::milliseconds(250);  // a lost bulk link of a living peer is tried again after this
  Duration stall_after =
      std::chrono::seconds(5);  // a thread at work without a sign of life for so long: announced as stalled
};

using PrefillEvent = std::variant<PeerUp, PeerMessage, PeerGone, LayerDone, StepDone, PartsSent, BulkReady, BulkLost,
                                  TransferAlive, DrainRequested>;
using PrefillEffect =
    std::variant<SendMessage, ConnectPeer, ConnectBulk, DisconnectBulk, SendParts, TransferProbe, StepPlan>;

// What a prefill node decides: reserve a prompt, compute it in chunks, send each part once it is complete, sample token
// 0, hold until committed. Loop thread. No clock, socket, thread or payload byte: the same events give the same
// effects. Messages about unknown, older or ended attempts, or from a process that is not the attempt's, change
// nothing. Every exit tells those who may hold something: G and D by Failed, D by PrefillDone. PrefillDone and Leases
// wait for the Grant, which proves that D knows the attempt. A D that leaves parts unanswered for KvSender's limit
// loses its bulk link, and only what streams to it fails. Owns every sequence of `engine` and every transfer of
// `sender`.
class PrefillNode {
 public:
  PrefillNode(const PrefillConfig& config, Engine& engine, KvSender& sender);
  // Events come in the order of their source. REQUIRES: effects.room() >= effects_max(), here and in on_deadline().
  // Effects are to be carried out in order.
  void on(const PrefillEvent& event, TimePoint now, BoundedVector<PrefillEffect>& effects);
  void on_deadline(TimePoint now, BoundedVector<PrefillEffect>& effects);
  TimePoint next_deadline() const;  // the earliest of all leases and waits; kNever: none
  size_t effects_max() const;       // of one call
  uint32_t requests() const { return requests_.size(); }
  // After DrainRequested: nothing is left here, and no connected gateway will send more.
  bool drained() const { return draining_ && requests_.size() == 0 && peers_.all_gateways_let_go(); }
  bool holds(RequestId request) const { return requests_.records().contains(request); }
  void check_conservation() const;  // CHECK; the simulator calls it after each event

 private:
  struct Turn {  // of one call
    TimePoint now;
    BoundedVector<PrefillEffect>& effects;
  };

  void handle(const PeerUp& up, Turn& turn);
  void handle(const PeerMessage& message, Turn& turn);
  void handle(const PeerGone& gone, Turn& turn);
  void handle(const LayerDone& done, Turn& turn);
  void handle(const StepDone& done, Turn& turn);
  void handle(const PartsSent& sent, Turn& turn);
  void handle(const BulkReady& ready, Turn& turn);
  void handle(const BulkLost& lost, Turn& turn);
  void handle(const TransferAlive&, Turn& turn) { transfer_watch_.answered(turn.now); }
  void handle(const DrainRequested&, Turn&) { draining_ = true; }
  void finish_turn(Turn& turn);

  void on_message(PeerId from, const PeerInfo& info, Turn& turn);
  void on_message(PeerId from, const Prefill& prefill, Turn& turn);
  void on_message(PeerId from, const Grant& grant, Turn& turn);
  void on_message(PeerId from, const Committed& committed, Turn& turn);
  void on_message(PeerId from, const Cancel& cancel, Turn& turn);
  void on_message(PeerId from, const Yield& yield, Turn& turn);
  void on_message(PeerId from, const Failed& failed, Turn& turn);
  void on_message(PeerId from, const MayLeave&, Turn&) { peers_.may_leave(from); }
  void on_message(PeerId from, const Want& want, Turn& turn) { peers_.on(from, want, turn.now); }
  template <class Other>
  void on_message(PeerId, const Other&, Turn&) {}  // not for a prefill node

  bool admits(PeerId from, const Prefill& prefill);
  Result<SequenceId> open(const Work& work);
  void start(PeerId from, const Prefill& prefill, SequenceId sequence, Turn& turn);
  void take_early_grant(PrefillRequest& request, Turn& turn);
  void take_grant(PrefillRequest& request, PeerId from, uint32_t first_block, Turn& turn);
  void start_streaming(PrefillRequest& request, PeerId to);
  void fail_streaming(PeerId to, const Error& error, Turn& turn);
  void offer_step(LayerRange layers);
  void take_scores(PrefillRequest& request, const ScoredTokens& scored, Turn& turn);
  void take_token(PrefillRequest& request, const EngineToken& token, Turn& turn);
  void send_done(PrefillRequest& request, Turn& turn);

  void emit(PrefillEffect effect, Turn& turn);
  void send(PeerId to, Message message, Turn& turn);
  void send_decode(const PrefillRequest& request, Message message, Turn& turn);
  void end_by_gateway(PeerId from, const Attempt& attempt);
  void fail_both(PrefillRequest& request, const Error& error, Turn& turn);
  void give_up_hold(PrefillRequest& request, Turn& turn);
  void release(PrefillRequest& request);

  const PrefillConfig config_;
  Engine& engine_;
  KvSender& sender_;
  PeerTable peers_;
  AttemptTable<PrefillRequest> requests_;
  EndedAttempts ended_;
  StepWatch watch_;
  TransferWatch transfer_watch_;
  bool draining_ = false;
  NodeTotals totals_;
  std::deque<EarlyGrant> early_grants_;  // by expiry; at most requests_max
  std::vector<SendParts> jobs_;          // scratch of one turn
};

}  // namespace spillway
