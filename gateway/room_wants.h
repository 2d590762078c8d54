#pragma once

#include <map>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "scheduler/placement.h"
#include "transfer/messages.h"

namespace spillway {

// What this gateway asks of nodes beyond its share: room for the head of its queue. A new head takes a new place in
// each node's line. Said again every kWantRenewal, for a node forgets. Loop thread; no I/O.
class RoomWants {
 public:
  // From now on `wanted` for `head`, and nothing else. Returns what is to be said to whom, in order, at most two a
  // node.
  std::vector<std::pair<PeerId, Want>> set(std::optional<RequestId> head, std::span<const RoomWanted> wanted,
                                           TimePoint now);
  std::vector<PeerId> asked_for(RequestId head) const;
  // It has no want of ours any more: it took the request, or is gone. Idempotent.
  void forget(PeerId node) { standing_.erase(node); }
  TimePoint next_deadline() const;  // the next renewal; kNever: nothing is wanted

 private:
  struct Standing {
    uint32_t blocks = 0;
    TimePoint renew_at{};
  };
  std::optional<RequestId> head_;
  std::map<PeerId, Standing> standing_;
};

}  // namespace spillway
