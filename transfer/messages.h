#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/ids.h"
#include "common/logprobs.h"
#include "common/result.h"
#include "common/sampling_params.h"
#include "common/trace_context.h"
#include "kv/block.h"
#include "transfer/message_bounds.h"
#include "transfer/node_totals.h"

// Every message between processes, one struct each, with who sends it to whom. Values; the wire form is messages.fbs.
// G = gateway, P = prefill node, D = decode node. Durations travel, instants never do.
namespace spillway {

inline constexpr uint32_t kProtocolVersion = 9;

enum class Role : uint8_t { kGateway, kPrefill, kDecode };
std::string_view role_name(Role role);

// First message both ways on a connection. Another protocol version or ModelId, or another canary in the same numerics
// class, is refused by name (HelloRefused): at once, or by a gateway also later, when it has compared all its nodes,
// which must store KV alike too.
struct Hello {
  uint32_t protocol_version = kProtocolVersion;
  Role role{};
  BootId boot{};
  std::string name;  // "prefill 0", for people
  ModelId model;
  BlockEncoding encoding;                // of the blocks it computes
  uint64_t canary = 0;                   // compute_canary: what its arithmetic makes of a fixed prompt; gateways: 0
  std::string control_endpoint;          // where it accepts connections; empty: nowhere
  std::vector<std::byte> bulk_endpoint;  // KvTransport::endpoint(); empty: none
  uint32_t blocks_total = 0, sequences_max = 0, max_model_len = 0, block_tokens = 0, step_tokens = 0;  // rows a step
  uint32_t growth_margin = 0;  // D: output tokens whose slots it holds from the start; P: 0
  bool colocates = false;      // D: it takes a Reserve that names itself as prefill; others: false
  bool operator==(const Hello&) const = default;
};
std::string process_name(const Hello& hello);  // for people: its name, or "a decode node"
struct HelloRefused {
  std::string reason;
  bool operator==(const HelloRefused&) const = default;
};
// P, D -> G: what the node could take now, and how much of that this gateway may promise (CreditShares). After every
// change, at most once per loop turn.
struct Load {
  uint32_t blocks_free = 0, running_sequences = 0, queued_prompt_tokens = 0;
  uint32_t preempted_sequences = 0;                 // of the running ones; while there are any, D takes no Reserve
  uint64_t preemptions = 0, recomputed_tokens = 0;  // since the node's start
  uint32_t blocks_cached = 0;                       // of the free ones: sealed, kept until their slot is wanted
  NodeTotals totals{};
  uint32_t stalled_ms = 0;  // the step in flight shows no progress for so long, in whole seconds; 0: it moves
  bool draining = false;    // it finishes what it has and leaves; to be answered by MayLeave
  uint32_t blocks_share = 0, sequences_share = 0;  // of the free ones: this gateway's; blocks at most blocks_free
  uint64_t newest_transfer = 0;      // TransferId::counter of this gateway's newest Prefill or Reserve that this counts
  uint32_t transfer_stalled_ms = 0;  // as stalled_ms: the transfer thread answers nothing for so long
  bool operator==(const Load&) const = default;
};
// G -> P: a decode node exists; connect to it.
struct PeerInfo {
  BootId boot{};
  std::string control_endpoint;
  bool operator==(const PeerInfo&) const = default;
};

// What both legs of a request know. (request, epoch) names one attempt; transfer is new with each.
struct Attempt {
  RequestId request;
  TransferId transfer;
  Epoch epoch{};
  auto operator<=>(const Attempt&) const = default;
};
struct Work {
  Attempt attempt;
  std::vector<TokenId> prompt;
  uint32_t output_tokens_max = 0;  // >= 1
  SamplingParams sampling;
  TenantKey tenant;
  std::vector<TokenId> stop_tokens;     // end the request; at most 8
  bool digest_logits = false;           // Tokens carry XXH3-64 of the f32 logits they were sampled from
  std::optional<TraceContext> trace{};  // of the client, for logs; valid()
  uint32_t logprob_count = 0;           // entries of Token::logprobs, at most 1 + kLogprobsMax
  bool score_prompt = false;     // to be answered by PromptLogprobs, so P reuses no prefix; only with a logprob_count
  PublicPrefix public_prefix{};  // at most the prompt
  bool operator==(const Work&) const = default;
};
struct Prefill {  // G -> P, together with Reserve
  Work work;
  BootId decode{};  // where the KV goes
  bool operator==(const Prefill&) const = default;
};
struct Reserve {  // G -> D
  Work work;
  BootId prefill{};  // P; D's own: it computes the prompt itself (colocated), and there is no P
  bool operator==(const Reserve&) const = default;
};
struct Grant {  // D -> P: slots are ready for blocks first_block.. of the prompt; earlier ones it holds already
  Attempt attempt;
  uint32_t first_block = 0;
  bool operator==(const Grant&) const = default;
};
struct PrefillDone {  // P -> D: everything it will send is sampled and queued
  Attempt attempt;
  uint32_t prompt_tokens = 0;
  TokenId first_token = 0;
  bool ended = false;  // token 0 ended the request: release, do not decode
  bool operator==(const PrefillDone&) const = default;
};
struct Committed {  // D -> P: all parts landed and verified, or no longer wanted; P lets go
  Attempt attempt;
  bool operator==(const Committed&) const = default;
};
struct Lease {  // P -> D: still computing or sending this one; hold on for `duration_ms` from now
  Attempt attempt;
  uint32_t duration_ms = 0;
  bool operator==(const Lease&) const = default;
};

enum class FinishReason : uint8_t { kNone, kStop, kLength };
struct NodeTimings {           // microseconds, of the parts that the sender knows; 0 elsewhere
  uint32_t wait_us = 0;        // arrival of the work to its first step (P) / to the first decode step after commit (D)
  uint32_t compute_us = 0;     // first step begins to token 0 sampled (P) / the step that made this token (D)
  uint32_t transfer_us = 0;    // D: first part landed to last part landed
  uint32_t commit_us = 0;      // D: PrefillDone seen to committed
  uint32_t cached_tokens = 0;  // P: prompt tokens not computed; D: prompt tokens not received, colocated as P
  bool operator==(const NodeTimings&) const = default;
};
struct Token {  // P (index 0), D (index >= 1; colocated all, index 0 timed as by P) -> G
  Attempt attempt;
  uint32_t index = 0;
  TokenId token = 0;
  FinishReason finish = FinishReason::kNone;
  uint64_t logits_digest = 0;
  NodeTimings timings;  // in index 0 and 1 only
  std::vector<TokenLogprob> logprobs{};
  bool operator==(const Token&) const = default;
};
// Whoever computes the prompt -> G, before Token 0: prompt tokens from position_first on; never of the first of all.
struct PromptLogprobs {
  Attempt attempt;
  uint32_t position_first = 0;
  uint32_t logprob_count = 0;            // entries of each token
  std::vector<TokenLogprob> logprobs{};  // at most kScoredTokensMax tokens
  bool operator==(const PromptLogprobs&) const = default;
};
struct Cancel {  // G -> P, D: the client left, or the attempt is over
  Attempt attempt;
  bool operator==(const Cancel&) const = default;
};
// D -> P: what decodes there cannot go on without the slots that this reserved. P gives it up, with kNoSpace to both,
// if token 0 is not out; else it says nothing, for then D has all it waits for soon.
struct Yield {
  Attempt attempt;
  bool operator==(const Yield&) const = default;
};
struct Failed {  // any -> any that holds something for the attempt
  Attempt attempt;
  ErrorCode code{};
  std::string detail;
  bool operator==(const Failed&) const = default;
};
struct Heartbeat {  // both ways; a peer that is silent for longer than the control channel's limit is lost
  bool operator==(const Heartbeat&) const = default;
};
// G -> P, D: its next request needs so many blocks there, more than its share; 0: no more. Said again while it stands.
struct Want {
  uint32_t blocks = 0;
  bool operator==(const Want&) const = default;
};
struct MayLeave {  // G -> P, D that drains: nothing of this gateway is or will be there
  bool operator==(const MayLeave&) const = default;
};

using Message = std::variant<Hello, HelloRefused, Load, PeerInfo, Prefill, Reserve, Grant, PrefillDone, Committed,
                             Lease, Token, PromptLogprobs, Cancel, Failed, Heartbeat, MayLeave, Want, Yield>;
std::string_view message_name(const Message& message);

}  // namespace spillway
