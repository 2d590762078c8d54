#pragma once

#include <cstdint>
#include <optional>

#include "common/clock.h"
#include "common/ids.h"
#include "kv/block.h"
#include "transfer/messages.h"

namespace spillway {

// One attempt at a decode node. Its sequence is open in the engine from beginning to end.
struct DecodeRequest {
  enum class State : uint8_t {
    kReserved,   // slots are held; P is not connected yet, the Grant waits for it
    kReceiving,  // granted
    kDecoding,   // committed, or colocated from the beginning: all that is left is done here
  };
  State state = State::kReserved;
  Attempt attempt;
  PeerId gateway{};
  BootId prefill{};  // this node's own: colocated, it computes the prompt too
  Work work;
  std::optional<SequenceId> sequence;
  uint32_t first_block = 0;    // earlier blocks of the prompt were cached
  uint32_t cached_tokens = 0;  // prompt tokens in those
  TimePoint arrived{};
  TimePoint lease_until = kNever;       // until committed: no sign of life of P until then ends the attempt
  std::optional<PrefillDone> done;      // P sampled token 0
  BlockEncoding landed_encoding;        // of P's blocks; valid with `done`
  TimePoint done_at{}, committed_at{};  // colocated: both when token 0 was sampled
  std::optional<TimePoint> first_landed, last_landed;
  std::optional<TimePoint> first_step;  // with its rows; colocated: until token 0 the first of its prompt's
};

}  // namespace spillway
