#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "kv/slot_pool.h"
#include "transfer/messages.h"

namespace spillway {

// One attempt at a prefill node. It computes (a sequence is open in the engine), then holds (token 0 is out, the
// prompt's slots are pinned until D committed).
struct PrefillRequest {
  Attempt attempt;
  PeerId gateway{};
  BootId decode{};  // where the KV goes; that process may not be connected yet
  Work work;
  std::optional<SequenceId> sequence;   // while computing
  std::optional<uint32_t> first_block;  // the Grant: what D wants starts here
  bool streaming = false;               // the sender knows the Grant
  TimePoint link_until = kNever;        // granted, but without a bulk link to stream on: until when one is waited for
  bool done_sent = false;               // PrefillDone left
  std::vector<SlotPin> held;            // kReader; the prompt's blocks while holding
  TokenId first_token = 0;              // while holding
  bool ended = false;                   // token 0 ended the request: nothing is sent any more
  uint32_t cached_tokens = 0;           // found in the prefix cache
  TimePoint arrived{};
  std::optional<TimePoint> first_step;  // when the first step with its tokens was planned
  TimePoint lease_due = kNever;         // the next Lease, once D granted
  TimePoint hold_until = kNever;        // while holding

  bool holding() const { return !sequence.has_value(); }
};

// A Grant whose Prefill has not arrived.
struct EarlyGrant {
  Attempt attempt;
  PeerId from{};
  uint32_t first_block = 0;
  TimePoint expires{};
};

}  // namespace spillway
