#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "common/sampling_params.h"
#include "gateway/running_attempt.h"
#include "kv/block.h"
#include "scheduler/fair_queue.h"
#include "scheduler/placement.h"
#include "transfer/messages.h"

namespace spillway {

struct GenerateRequest {  // already text-free
  RequestId request;
  std::vector<TokenId> prompt;  // at least one
  uint32_t output_tokens_max = 0;
  SamplingParams sampling;
  TenantKey tenant;
  PublicPrefix public_prefix{};
  std::vector<TokenId> stop_tokens;
  int32_t priority = 0;  // within its tenant: lower is sooner
  bool digest_logits = false;
  std::optional<TraceContext> trace{};
  uint32_t logprob_count = 0;  // as in Work
  bool score_prompt = false;
  std::optional<RequestId> leader{};  // another choice of the same prompt, submitted before
};

// The timed parts of one request, first byte to last token. Colocated, D is P too, and nothing is handed over.
struct Waterfall {
  Duration queue{};                      // arrival to dispatch
  Duration prefill_wait{};               // P: arrival to first step
  Duration prefill{};                    // P: first step to token 0 sampled
  Duration transfer{};                   // D: first part landed to last part landed (most of it hides behind prefill)
  Duration commit{};                     // D: PrefillDone seen to all parts landed
  Duration decode_queue{};               // D: committed to its first step
  Duration decode_step{};                // D: that step
  Duration ttft{}, handover{}, total{};  // at the gateway: to token 0; token 0 to token 1; to the last token
  uint32_t prompt_tokens = 0, output_tokens = 0;
  uint32_t prefill_cached_tokens = 0, decode_cached_tokens = 0;
  bool colocated = false;  // its last attempt
};

// One request that the gateway has not answered to the end.
struct GatewayRequest {
  GenerateRequest work;
  TimePoint arrived{};
  TimePoint queue_until{};       // while it waits
  uint32_t attempts = 0;         // begun so far; the epoch of the last
  uint64_t cost = 0;             // what its tenant pays in advance
  std::vector<uint64_t> prefix;  // prefix_chain() of the prompt
  Waterfall waterfall;           // as far as known
  TimePoint first_token_at{};
  std::optional<TokenId> first_token{};   // is out, of the present attempt or of one that was refused since
  std::optional<RunningAttempt> running;  // otherwise it waits in the queue
  bool led = false;                       // its followers wait no more
  bool held = false;                      // or for its leader, before it comes into the queue
  std::optional<AttemptNodes> beside{};   // where its leader ran
};

// Keys are uniformly random (HKDF), so a part of one names its tenant.
TenantId tenant_id(const TenantKey& tenant);

// The requests under way and the one queue, fair among tenants: a request costs its prompt tokens and twice its output
// tokens (the weights of FairQueue's paper), paid in advance for as much output as requests have of late. Of a further
// choice's prompt only what its leader's blocks do not hold costs. A record's address is stable until erase(). Loop
// thread.
class RequestTable {
 public:
  GatewayRequest* find(RequestId request);
  // REQUIRES: not in the table. Waits in its tenant's order; a choice whose leader is in the table, first for
  // release().
  GatewayRequest& insert(GatewayRequest request);
  GatewayRequest* queue_head();  // nullptr: nobody waits
  // Who has to leave a queue that `newcomer` overfilled, maybe itself. REQUIRES: `newcomer` waits.
  GatewayRequest& least_deserving(const GatewayRequest& newcomer);
  // The same for those that wait for their leader, which are in no order yet: the last of the tenant with most of them,
  // of `newcomer`'s own where it has as many. REQUIRES: `newcomer` is held.
  GatewayRequest& last_held_of_most(const GatewayRequest& newcomer);
  // REQUIRES: `request` is the head and waits.
  RunningAttempt& start_head(const RunningAttempt& attempt);
  void requeue(GatewayRequest& request);  // to its tenant's head. REQUIRES: running
  // Followers that wait for it come into the queue, until `followers_until`.
  void erase(GatewayRequest& request, TimePoint followers_until);

  // Those that wait for `leader` need not any more: they come into the queue, and wait there until `queue_until`.
  void release(RequestId leader, const std::optional<AttemptNodes>& beside, TimePoint queue_until);

  uint32_t held() const { return held_; }
  uint32_t queued() const { return static_cast<uint32_t>(queue_.size()) + held_; }
  uint32_t running() const { return static_cast<uint32_t>(requests_.size()) - queued(); }
  // Ids of those that `wanted` holds for, ascending: a copy, so that the caller may erase.
  template <class Wanted>
  std::vector<RequestId> select(Wanted&& wanted) const {
    std::vector<RequestId> ids;
    for (const auto& [id, request] : requests_) {
      if (wanted(request)) ids.push_back(id);
    }
    return ids;
  }
  TimePoint next_deadline() const;
  void check_conservation() const;

 private:
  static constexpr uint32_t kIdleTenantsMax = 128;  // twice the API keys
  std::map<RequestId, GatewayRequest> requests_;
  FairQueue queue_{kIdleTenantsMax};
  uint32_t held_ = 0;
  double output_expected_ = 64;  // tokens: the mean of late requests
};

}  // namespace spillway
