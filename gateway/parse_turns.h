#pragma once

#include <cstdint>
#include <optional>
#include <set>

#include "scheduler/fair_queue.h"

namespace spillway {

// Whose request the parse pool reads next: as many at a time as the pool has threads, fair among tenants by what their
// requests cost, so that one tenant's large requests hold up another's by one of them at most. Pure. Http thread.
class ParseTurns {
 public:
  explicit ParseTurns(uint32_t at_once) : at_once_(at_once) {}

  void ask(const QueuedRequest& asked) { waiting_.push(asked); }  // REQUIRES: it neither waits nor has a turn
  // One whose turn begins now.
  std::optional<RequestId> begin_next();
  // Its turn ends, or it waits no more.
  void end(RequestId request);
  uint32_t waiting() const { return waiting_.size(); }

 private:
  static constexpr uint32_t kIdleTenantsMax = 128;  // twice the API keys

  const uint32_t at_once_;
  FairQueue waiting_{kIdleTenantsMax};
  std::set<RequestId> begun_;  // at most at_once_
};

}  // namespace spillway
