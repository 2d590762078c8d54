#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/result.h"
#include "scheduler/placement.h"
#include "transfer/messages.h"

namespace spillway {

// What one leg of an attempt will take on its node.
struct NodeShare {
  uint32_t blocks = 0;
  uint32_t prompt_tokens = 0;  // still to be computed there; 0 on a decode node, unless the attempt is colocated
  uint64_t transfer = 0;       // TransferId::counter of the attempt
};

struct PreemptionCounts {
  uint64_t preemptions = 0, recomputed_tokens = 0;
};

// What the nodes of one role tell of themselves.
struct RoleCounts {
  NodeTotals totals;                                             // of all, while they were connected
  uint32_t blocks_free = 0, blocks_cached = 0, blocks_used = 0;  // of those that are now, as last announced
};

// The prefill and decode nodes that are connected, as they announced themselves (Hello, Load), corrected by what was
// sent to them since. A decode node that colocates does a prefill node's part too: what could serve counts it as both,
// what is counted by role as what it announced. Loop thread; no I/O.
class NodeTable {
 public:
  // A prefill node takes nothing while prompt tokens of ours for `prefill_steps_ahead` of its steps wait there.
  NodeTable(uint32_t nodes_max, uint32_t prefill_steps_ahead);

  // An error that says why not: not a node, a Hello that no request could be placed by (no blocks, no rows), other bits
  // than a node of the same numerics class, or one node too many. REQUIRES: `node` is not in the table.
  Result<void> add(PeerId node, const Hello& hello);
  bool remove(PeerId node);  // false: unknown
  bool knows(PeerId node) const { return nodes_.contains(node); }
  const Hello* hello(PeerId node) const;           // nullptr: unknown
  std::string name(PeerId node, Role role) const;  // as people know it; "a decode node" where it is unknown
  std::vector<PeerId> with_role(Role role) const;
  // What people should know of `node` when it joins: it computes in another numerics class than one that joined before.
  // Empty: nothing, or unknown.
  std::string warning_about(PeerId node) const;

  // What was placed on a node since what its last Load counts is added to it. Unknown nodes are ignored.
  struct Moved {           // since its last Load
    bool prompts = false;  // it computed prompt tokens (a cancelled prompt leaves its queue too, but with its sequence)
    bool anything = false;  // it made a step, for whomever
  };
  Moved on(PeerId node, const Load& load);
  // REQUIRES: the node is known, `request` not placed there, transfers ascend.
  void place(PeerId node, RequestId request, const NodeShare& share);
  void release(PeerId node, RequestId request);    // over, at least on this node; idempotent
  void prefilled(PeerId node, RequestId request);  // nothing of its prompt is left to compute there; idempotent
  // It had no space: takes nothing until it announces more room, or until then.
  void refused(PeerId node, TimePoint until);

  void end_refusals(TimePoint now);  // those whose time is over

  // Those that drain and were not let go yet. They take nothing new, as do those whose step in flight or transfer
  // thread is stalled.
  std::vector<PeerId> leaving() const;
  void let_go(PeerId node);
  bool drains(PeerId node) const;  // false: unknown
  // Why nodes that do the part of `role` take nothing though they are connected, one line each; and how many take
  // something.
  struct Capacity {
    std::vector<std::string> troubles;
    uint32_t working = 0;
  };
  Capacity capacity(Role role) const;

  // What no node will ever take, as far as nodes of both roles are known: kTooLong.
  Result<void> could_fit(uint32_t prompt_tokens, uint32_t output_tokens_max) const;
  // Only a node that drains or is stalled could take it, while others of its role work: kUnavailable, naming it.
  // Whoever waits behind it would wait in vain.
  Result<void> could_fit_working(uint32_t prompt_tokens, uint32_t output_tokens_max) const;
  // Nodes that take requests of `tokens` (prompt + output) now, ascending; those that refused lately are full, as are
  // prefill nodes with enough to compute and decode nodes where preempted sequences wait; those that drain, are stalled
  // or have not yet told this gateway's share are left out.
  std::vector<NodeView> views(uint64_t tokens, TimePoint now) const;
  TimePoint next_deadline() const;  // the earliest end of a refusal; kNever: none

  uint32_t count(Role role) const;  // of those that have told this gateway's share: they can be used
  bool any_for(Role part) const;    // the same, of those that do this part
  uint32_t max_model_len() const;   // smallest; 0: no nodes
  uint32_t blocks_total() const;
  uint32_t blocks_free() const;                                          // as announced, cached ones included
  bool preempts(PeerId node) const;                                      // sequences wait there for KV blocks
  const PreemptionCounts& preemption_counts() const { return counts_; }  // while nodes were connected
  RoleCounts counts(Role role) const;
  // Every share belongs to a request for which `placed(node, request)` holds (CHECK); returns how many there are.
  template <class Placed>
  size_t check_shares(Placed&& placed) const;

 private:
  struct Node {
    Hello hello;
    Load load;
    std::map<RequestId, NodeShare> shares;
    TimePoint refused_until{};
    bool announced = false;  // a Load came: it told our share, and counters of later ones are told from it
    bool let_go = false;     // told MayLeave
  };
  struct Fit {  // of the nodes that do one part
    bool any = false, fits = false;
    uint64_t model_len = 0, pool = 0;  // the largest, tokens
  };
  static bool does(const Node& node, Role part) {
    return node.hello.role == part || (part == Role::kPrefill && node.hello.colocates);
  }
  static bool works(const Node& node) {
    return !node.load.draining && node.load.stalled_ms == 0 && node.load.transfer_stalled_ms == 0;
  }
  Fit fit(Role role, uint32_t prompt_tokens, uint32_t output_tokens_max, bool working) const;
  NodeView view(PeerId peer, const Node& node, TimePoint now) const;

  uint32_t nodes_max_, prefill_steps_ahead_;
  std::map<PeerId, Node> nodes_;
  PreemptionCounts counts_;
  NodeTotals prefill_totals_, decode_totals_;
};

template <class Placed>
size_t NodeTable::check_shares(Placed&& placed) const {
  size_t shares = 0;
  for (const auto& [peer, node] : nodes_) {
    for (const auto& [request, share] : node.shares) CHECK(placed(peer, request));
    shares += node.shares.size();
  }
  return shares;
}

}  // namespace spillway
