#pragma once

#include <cstdint>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"

namespace spillway {

// Room on a node: KV blocks, and sequences that may run beside those that do.
struct Credits {
  uint32_t blocks = 0, sequences = 0;
  bool operator==(const Credits&) const = default;
};

inline constexpr Duration kWantLease = std::chrono::seconds(5);    // a Want holds for so long
inline constexpr Duration kWantRenewal = std::chrono::seconds(1);  // and is said again after this while it stands

// What of a node's free room each of its gateways may promise, so that no two promise the same. Without wants it is
// split evenly, what is left over goes to those that came first: an idle gateway places at once. A gateway whose next
// request needs more than its share wants that many blocks and a sequence. Wants are served before all else, in order
// of arrival: each is given what it wants, or all there is, and then the others get nothing until enough has come
// free. So a large request has its turn, whoever has it. The shares add up to what is free, always.
// A want ends with its gateway's next request that the node takes, its withdrawal, its gateway, or kWantLease after it
// was said last. Bounded by the gateways: one want of each. Pure; no clock.
class CreditShares {
 public:
  explicit CreditShares(uint32_t blocks_total) : blocks_total_(blocks_total) {}

  void join(PeerId gateway);   // REQUIRES: it is not there
  void leave(PeerId gateway);  // and its want ends; idempotent
  // Said again it keeps its place. Nothing, and more than the node has in all, is no want and ends one. Gateways that
  // are not there are ignored.
  void want(PeerId gateway, uint32_t blocks, TimePoint now);
  void end_want(PeerId gateway);  // idempotent
  void end_due(TimePoint now);
  TimePoint next_deadline() const;  // kNever: nothing is wanted

  struct Share {
    PeerId gateway{};
    Credits credits;
  };
  std::vector<Share> split(Credits free) const;  // one for each gateway, in order of coming

 private:
  struct Standing {
    PeerId gateway{};
    uint32_t blocks = 0;
    TimePoint until{};
  };
  uint32_t blocks_total_;
  std::vector<PeerId> gateways_;  // in order of coming
  std::vector<Standing> wants_;   // in order of arrival
};

}  // namespace spillway
