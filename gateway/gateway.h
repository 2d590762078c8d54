#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "common/bounded_vector.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/result.h"
#include "gateway/gateway_config.h"
#include "gateway/gateway_health.h"
#include "gateway/node_table.h"
#include "gateway/request_table.h"
#include "gateway/room_wants.h"
#include "gateway/wait_counts.h"
#include "scheduler/prefix_affinity.h"
#include "transfer/control_channel.h"
#include "transfer/messages.h"

namespace spillway {

struct RequestArrived {
  GenerateRequest work;
};
struct ClientGone {  // nothing more is emitted for it
  RequestId request;
};
struct StopFound {  // its text holds a stop string: it ends well, now. No effect on one that has ended meanwhile.
  RequestId request;
};

// To the stream of one request; exactly one of StreamEnd and StreamError closes it, unless ClientGone came before.
struct StreamToken {
  RequestId request;
  uint32_t index = 0;  // ascending without gaps
  TokenId token = 0;
  uint64_t logits_digest = 0;
  Duration since_arrival{};  // of its request at the gateway
  bool stops = false;        // a stop token: ends the answer, no part of its text
  std::vector<TokenLogprob> logprobs{};
};
struct StreamScores {  // of a request with score_prompt, in order, before its first token; after a retry once more
  RequestId request;
  uint32_t position_first = 0;  // of the prompt's tokens; >= 1
  uint32_t logprob_count = 0;   // entries of each; >= 1
  std::vector<TokenLogprob> logprobs{};
};
struct StreamEnd {
  RequestId request;
  FinishReason finish{};
  Waterfall waterfall;
};
struct StreamError {
  RequestId request;
  Error error;
};

struct GatewayCounters {
  uint64_t requests = 0, finished = 0, cancelled = 0;
  uint64_t prompt_tokens = 0, cached_tokens = 0;  // of requests with a token out
  uint64_t output_tokens = 0;                     // as they leave, whatever becomes of their request
  std::map<ErrorCode, uint64_t> errors;
  WaitCounts queue_waits;  // of each request that the queue took: until its first dispatch, or its end without one
  uint32_t queued = 0, running = 0, prefill_nodes = 0, decode_nodes = 0;
  uint32_t blocks_total = 0, blocks_free = 0;  // as last announced, all nodes together; free ones with cached ones
  PreemptionCounts preemption;                 // on all nodes, while they were connected
  RoleCounts prefill, decode;
};

using GatewayEvent = std::variant<PeerUp, PeerMessage, PeerGone, RequestArrived, ClientGone, StopFound, DrainRequested>;
using GatewayEffect = std::variant<SendMessage, StreamToken, StreamScores, StreamEnd, StreamError>;

// What the gateway decides: the only queue, placement, the order of each stream's tokens, cancellation, failure. Loop
// thread. No clock, socket, thread or text: the same events give the same effects. Messages about other attempts than
// the present one of a request, or from a peer that is not its leg, change nothing.
class Gateway {
 public:
  Gateway(const GatewayConfig& config, BootId boot);
  // REQUIRES: effects.room() >= effects_max(), here and in on_deadline(); a RequestArrived whose id is not under way.
  // Effects are to be carried out in order.
  void on(const GatewayEvent& event, TimePoint now, BoundedVector<GatewayEffect>& effects);
  void on_deadline(TimePoint now, BoundedVector<GatewayEffect>& effects);
  TimePoint next_deadline() const;
  size_t effects_max() const;  // of one call
  GatewayCounters counters() const;
  // Ready: nodes of both roles, or ones that colocate, are connected and at work, requests move, and it does not drain.
  GatewayHealth health(TimePoint now) const;
  // After DrainRequested: all that was accepted is answered. What arrives meanwhile is refused with kUnavailable.
  bool drained() const { return draining_ && requests_.queued() + requests_.running() == 0; }
  uint32_t max_model_len() const { return nodes_.max_model_len(); }  // smallest of the connected nodes; 0: none
  std::string warning_about(PeerId joined) const { return nodes_.warning_about(joined); }
  void check_conservation() const;  // CHECK; the simulator calls it after each event

 private:
  struct Turn {  // of one call
    TimePoint now;
    BoundedVector<GatewayEffect>& effects;
  };

  void handle(const PeerUp& up, Turn& turn);
  void handle(const PeerMessage& message, Turn& turn);
  void handle(const PeerGone& gone, Turn& turn);
  void handle(const RequestArrived& arrived, Turn& turn);
  void handle(const ClientGone& gone, Turn& turn);
  void handle(const StopFound& found, Turn& turn);
  void handle(const DrainRequested&, Turn&) { draining_ = true; }

  void on_message(PeerId from, const Load& load, Turn& turn);
  void on_message(PeerId from, const Token& token, Turn& turn);
  void on_message(PeerId from, const PromptLogprobs& scores, Turn& turn);
  void on_message(PeerId from, const Failed& failed, Turn& turn);
  template <class Other>
  void on_message(PeerId, const Other&, Turn&) {}  // not for a gateway

  void dispatch_queue(Turn& turn);
  std::vector<NodeView> views_for(const GatewayRequest& request, TimePoint now) const;
  Placement placement(const GatewayRequest& request, const std::vector<NodeView>& views) const;
  void ask_for_room(const GatewayRequest* head, const std::vector<NodeView>& views, Turn& turn);
  void dispatch(GatewayRequest& request, const AttemptNodes& place, Turn& turn);
  GatewayRequest* find(const Attempt& attempt);
  void node_moved(PeerId node, TimePoint now);
  std::string why_due(const GatewayRequest& request, TimePoint now) const;
  void let_nodes_leave(Turn& turn);
  void stream_ready_tokens(GatewayRequest& request, Turn& turn);
  void time_token(GatewayRequest& request, const Token& token, TimePoint now);
  void count_wait(const GatewayRequest& request, TimePoint now);
  void end(GatewayRequest& request, FinishReason finish, Turn& turn);
  void fail_request(GatewayRequest& request, const Error& error, Turn& turn);
  void leg_lost(GatewayRequest& request, PeerId node, const Error& error, Turn& turn);
  void close_leg(GatewayRequest& request, RunningAttempt::Leg& leg);
  void cancel_open_legs(GatewayRequest& request, Turn& turn);
  void send(PeerId to, Message message, Turn& turn);

  const GatewayConfig config_;
  const BootId boot_;
  NodeTable nodes_;
  RequestTable requests_;
  PrefixAffinity affinity_;
  RoomWants wants_;
  GatewayCounters counters_;
  TimePoint moved_at_{};  // a dispatched request came forward; while none is, a node made a step or the first one came
  bool draining_ = false;
  uint64_t transfers_ = 0;  // TransferId::counter of the last attempt
};

}  // namespace spillway
