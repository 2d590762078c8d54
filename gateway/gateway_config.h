#pragma once

#include <cstdint>

#include "common/clock.h"
#include "transfer/control_channel.h"

namespace spillway {

// Bounds of the gateway; its users' flags set the first, the rest are constants with their reasons.
struct GatewayConfig {
  uint32_t queue_max = 64;           // requests waiting; more are refused with kQueueFull
  uint32_t held_max = 512;           // further choices that wait for the first of their prompt, beside these
  uint32_t running_max = 256;        // dispatched at once
  uint32_t attempts_max = 16;        // placements of one request that ended in kNoSpace
  uint32_t nodes_max = kPeersMax;    // more are not used
  uint32_t ahead_max = 64;           // tokens of one request that may wait for an earlier one
  uint32_t prefill_steps_ahead = 2;  // a prefill node with prompt tokens for so many steps gets no more
  // Prefixes remembered with the nodes that have them, in spans of so many tokens; a node is preferred for at most the
  // last.
  uint32_t affinity_entries_max = 1u << 16, affinity_span_tokens = 64, affinity_tokens_max = 4096;
  // From arrival, repeated waits included, and of a further choice anew once its leader has its second token; and from
  // its last token while its decode node has preempted sequences.
  Duration queue_wait_max = std::chrono::minutes(5);
  // A dispatched request is failed when for so long no token came and its node did nothing for others either: before
  // its first token P computed no prompt at all; later, where D has preempted sequences (it may be one of them, and
  // waits for those before it), D made no token and recomputed none.
  Duration progress_max = std::chrono::seconds(30);
  // Requests are dispatched and none of them moved for so long, or they wait and no node made a step: not ready.
  Duration standstill_max = std::chrono::seconds(15);
  // A node without space takes nothing so long, or until it announces more; doubled with each attempt, up to 32 times
  // this.
  Duration refusal_pause = std::chrono::milliseconds(100);
};

}  // namespace spillway
