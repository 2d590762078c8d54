#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "common/bounded_vector.h"
#include "common/clock.h"
#include "decode_node/decode_request.h"
#include "engine/compute_job.h"
#include "engine/engine.h"
#include "engine/step_watch.h"
#include "transfer/attempt_log.h"
#include "transfer/attempt_table.h"
#include "transfer/control_channel.h"
#include "transfer/kv_receiver.h"
#include "transfer/messages.h"
#include "transfer/peer_table.h"
#include "transfer/transfer_job.h"
#include "transfer/transfer_watch.h"

namespace spillway {

struct DecodeConfig {
  uint32_t requests_max = 0;
  BootId boot{};           // of this process
  bool colocates = false;  // it computes prompts too, for a Reserve that names this process as prefill
  Duration lease = std::chrono::seconds(5);  // how long a reservation lives without a sign from P
  uint32_t vocab = 0;                        // token ids are below it; at most EngineConfig::vocab
  uint32_t peers_max = kPeersMax;
  Duration bulk_retry = std::chrono::milliseconds(250);  // a lost bulk link of a living peer is tried again after this
  Duration yield_again = std::chrono::seconds(1);        // an attempt that was asked to yield is asked again after this
  Duration stall_after =
      std::chrono::seconds(5);  // a thread at work without a sign of life for so long: announced as stalled
};

using DecodeEvent = std::variant<PeerUp, PeerMessage, PeerGone, LayerDone, StepDone, PartsLanded, TransferClosed,
                                 BulkReady, BulkLost, TransferAlive, DrainRequested>;
using DecodeEffect =
    std::variant<SendMessage, ConnectBulk, DisconnectBulk, OpenTransfer, CloseTransfer, TransferProbe, StepPlan>;

// What a decode node decides: reserve, grant, receive, commit, join the batch, finish; colocated: reserve, compute the
// prompt in chunks between the others' tokens, go on. Loop thread. No clock, socket, thread or payload byte: the same
// events give the same effects, so tests and the simulator replay a node from a log.
// Messages about unknown, older or ended attempts, or from a process that is not the attempt's, change nothing. Every
// exit tells those who may hold something: G by Failed or its last Token, P by Committed or Failed. Owns every sequence
// of `engine` and every transfer of `receiver`.
class DecodeNode {
 public:
  DecodeNode(const DecodeConfig& config, Engine& engine, KvReceiver& receiver);
  // Events come in the order of their source. REQUIRES: effects.room() >= effects_max(), here and in on_deadline().
  // Effects are to be carried out in order: the transfer thread must know a transfer before its Grant leaves.
  void on(const DecodeEvent& event, TimePoint now, BoundedVector<DecodeEffect>& effects);
  void on_deadline(TimePoint now, BoundedVector<DecodeEffect>& effects);
  TimePoint next_deadline() const;  // the earliest of all leases and waits; kNever: none
  size_t effects_max() const;       // of one call
  uint32_t requests() const { return requests_.size(); }
  // After DrainRequested: nothing is left here, and no connected gateway will send more.
  bool drained() const { return draining_ && requests_.size() == 0 && peers_.all_gateways_let_go(); }
  bool holds(RequestId request) const { return requests_.records().contains(request); }
  void check_conservation() const;  // one owner per slot, counts add up (CHECK)

 private:
  struct Turn {  // of one call
    TimePoint now;
    BoundedVector<DecodeEffect>& effects;
  };
  using State = DecodeRequest::State;

  void handle(const PeerUp& up, Turn& turn);
  void handle(const PeerMessage& message, Turn& turn);
  void handle(const PeerGone& gone, Turn& turn);
  void handle(const LayerDone& done, Turn& turn);
  void handle(const StepDone& done, Turn& turn);
  void handle(const PartsLanded& landed, Turn& turn);
  void handle(const TransferClosed& closed, Turn& turn);
  void handle(const BulkReady& ready, Turn& turn);
  void handle(const BulkLost& lost, Turn& turn);
  void handle(const TransferAlive&, Turn& turn) { transfer_watch_.answered(turn.now); }
  void handle(const DrainRequested&, Turn&) { draining_ = true; }
  void finish_turn(Turn& turn);
  void ask_back(Turn& turn);

  void on_message(PeerId from, const Reserve& reserve, Turn& turn);
  void on_message(PeerId from, const Lease& lease, Turn& turn);
  void on_message(PeerId from, const PrefillDone& done, Turn& turn);
  void on_message(PeerId from, const Cancel& cancel, Turn& turn);
  void on_message(PeerId from, const Failed& failed, Turn& turn);
  void on_message(PeerId from, const MayLeave&, Turn&) { peers_.may_leave(from); }
  void on_message(PeerId from, const Want& want, Turn& turn) { peers_.on(from, want, turn.now); }
  template <class Other>
  void on_message(PeerId, const Other&, Turn&) {}  // not for a decode node

  bool admits(PeerId from, const Reserve& reserve, Turn& turn);
  bool is_colocated(const Reserve& reserve) const { return reserve.prefill == config_.boot; }
  Result<SequenceId> open(const Reserve& reserve);
  bool has_room_for(const Reserve& reserve) const;
  void start_receiving(DecodeRequest& request, PeerId from, Turn& turn);
  DecodeRequest* uncommitted(const Attempt& attempt, PeerId from);
  void commit_if_complete(DecodeRequest& request, Turn& turn);
  void take_scores(DecodeRequest& request, const ScoredTokens& scored, Turn& turn);
  void take_token(DecodeRequest& request, const EngineToken& token, Duration step_elapsed, Turn& turn);
  NodeTimings prompt_timings(DecodeRequest& request, TimePoint now) const;
  NodeTimings decode_timings(const DecodeRequest& request, Duration step_elapsed, TimePoint now) const;

  void emit(DecodeEffect effect, Turn& turn);
  void send(PeerId to, Message message, Turn& turn);
  void send_prefill(const DecodeRequest& request, Message message, Turn& turn);
  void end_by_gateway(PeerId from, const Attempt& attempt, Turn& turn);
  void fail_both(DecodeRequest& request, const Error& error, Turn& turn);
  void release(DecodeRequest& request, Turn& turn);
  void close_transfer(const DecodeRequest& request, Turn& turn);

  const DecodeConfig config_;
  Engine& engine_;
  KvReceiver& receiver_;
  PeerTable peers_;
  AttemptTable<DecodeRequest> requests_;
  EndedAttempts ended_;
  StepWatch watch_;
  TransferWatch transfer_watch_;
  TimePoint yield_again_at_ = kNever;  // a Yield is out; the next one then
  bool draining_ = false;
  NodeTotals totals_;
};

}  // namespace spillway
