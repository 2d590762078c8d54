#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "simulator/faults.h"
#include "transfer/credit_shares.h"
#include "transfer/messages.h"

namespace spillway {

// Holds each gateway to what each node told it: it promises no more than its share beyond what the node has counted,
// and nothing where it was told that the node drains or that its step stalls. A node is the PeerId that the gateway
// knows it by. Counts the wants that were met.
class CreditWatch {
 public:
  void told(ProcessId gateway, PeerId node, const Load& load);
  // Prefill or Reserve. What is wrong with it; nothing: it is within the share.
  std::optional<std::string> placed(ProcessId gateway, PeerId node, const Attempt& attempt, uint32_t blocks);
  void over(ProcessId gateway, PeerId node, const Attempt& attempt);  // both know, or will; idempotent
  void over(ProcessId gateway, RequestId request);                    // on all nodes
  void wanted(ProcessId gateway, PeerId node, const Want& want);
  void forget(ProcessId gateway, PeerId node);  // they are connected no more
  void forget(ProcessId gateway);               // it died

  uint64_t wants_made() const { return wants_made_; }
  uint64_t wants_met() const { return wants_met_; }

 private:
  struct Pair {
    std::optional<Load> told;
    std::map<Attempt, uint32_t> promised;  // blocks, not counted by `told`
    bool wants = false;
  };
  std::map<std::pair<ProcessId, PeerId>, Pair> pairs_;
  uint64_t wants_made_ = 0, wants_met_ = 0;
};

}  // namespace spillway
