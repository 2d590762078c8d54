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
  uint32_t prompt_tokens = 0;  // still to be computed there; 0 on a decode node
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
// sent to them since. Loop thread; no I/O.
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

  // A Load says nothing about what it counts, so a share is added to it until the node announces at least as many
  // sequences as were placed on it, or speaks of the request. Another gateway's requests may make it too early: then
  // the node refuses with kNoSpace, which costs an attempt and nothing else. Unknown nodes are ignored. True: it
  // computed prompt tokens since its last Load (a cancelled prompt leaves its queue as well, but with its sequence).
  bool on(PeerId node, const Load& load);
  void place(PeerId node, RequestId request, const NodeShare& share);  // REQUIRES: the node is known, not placed there
  void spoke(PeerId node, RequestId request);                          // of this request: its next Load counts it
  void release(PeerId node, RequestId request);                        // over, at least on this node; idempotent
  // It had no space: takes nothing until it announces more room, or until then.
  void refused(PeerId node, TimePoint until);

  void end_refusals(TimePoint now);  // those whose time is over

  // What no node will ever take, as far as nodes of both roles are known: kTooLong.
  Result<void> could_fit(uint32_t prompt_tokens, uint32_t output_tokens_max) const;
  // Nodes that take requests of `tokens` (prompt + output) now, ascending; those that refused lately are full, as are
  // prefill nodes with enough to compute and decode nodes where preempted sequences wait.
  std::vector<NodeView> views(uint64_t tokens, TimePoint now) const;
  TimePoint next_deadline() const;  // the earliest end of a refusal; kNever: none

  uint32_t count(Role role) const { return static_cast<uint32_t>(with_role(role).size()); }
  uint32_t max_model_len() const;  // smallest; 0: no nodes
  uint32_t blocks_total() const;
  uint32_t blocks_free() const;                                          // as announced, cached ones included
  bool preempts(PeerId node) const;                                      // sequences wait there for KV blocks
  const PreemptionCounts& preemption_counts() const { return counts_; }  // while nodes were connected
  RoleCounts counts(Role role) const;
  // Every share belongs to a request for which `placed(node, request)` holds (CHECK); returns how many there are.
  template <class Placed>
  size_t check_shares(Placed&& placed) const;

 private:
  struct Share {
    NodeShare share;
    bool counted = false;  // in `load`
  };
  struct Node {
    Hello hello;
    Load load;
    std::map<RequestId, Share> shares;
    TimePoint refused_until{};
    bool announced = false;  // a Load came: counters of later ones are told from it
  };
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
