#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "common/ids.h"

namespace spillway {

// Where one request runs. Pure: the gateway and the simulator call the same functions.
struct NodeView {  // as last announced, corrected by what was sent to it since; what is free is ours to promise
  PeerId node{};
  bool takes_prefill = false, takes_decode = false;  // both: it colocates
  uint32_t queued_prompt_tokens = 0, running_sequences = 0, sequences_max = 0;
  uint32_t blocks_total = 0, blocks_free = 0, blocks_promised = 0;
  uint32_t block_tokens = 64;
  uint32_t growth_margin =
      std::numeric_limits<uint32_t>::max();  // output tokens that a decode node makes room for first
  uint32_t cached_tokens = 0;                // of this prompt, probably
  // Free as well, but other gateways' to promise.
  uint32_t blocks_of_others = 0, sequences_of_others = 0;
  bool has_enough = false;  // as many prompts of ours as it can work on: it takes none, more room would not help
};
// Tokens that a node makes room for before it begins.
inline uint64_t tokens_at_first(uint32_t prompt_tokens, uint32_t output_tokens_max, uint32_t growth_margin) {
  return uint64_t{prompt_tokens} + (output_tokens_max < growth_margin ? output_tokens_max : growth_margin);
}
struct PlacementQuery {
  uint32_t prompt_tokens = 0, output_tokens_max = 0;
  std::span<const NodeView> nodes;            // ascending PeerId; ties go to the lower, so a run repeats
  uint32_t affinity_tokens_max = UINT32_MAX;  // cached tokens count only up to here: the cap
};
struct Disaggregate {
  PeerId prefill{}, decode{};
};
struct Colocate {  // the decode node computes the prompt too
  PeerId decode{};
};
struct Wait {};  // every node is busy; try again when one announces room
enum class RefuseReason : uint8_t { kNoPrefillNode, kNoDecodeNode, kNeverFits };
struct Refuse {
  RefuseReason reason{};
};
using Placement = std::variant<Disaggregate, Colocate, Wait, Refuse>;

// Among prefill nodes with room for the prompt the one where least is left to compute until this prompt is: uncomputed
// prompt tokens there, its own but those cached there included. Among decode nodes with room for the prompt and as much
// of the output as they make room for first, the one with most free unpromised blocks, the cached ones of this prompt
// counted as free. So a node with the prefix is preferred until others' work on it outweighs what it saves, and never
// by more than affinity_tokens_max. Ties go to the lower PeerId. Refuse: no node of a role, or none of a role could
// hold it even when idle. Wait: some could, but no pair has room now.
// Where no prefill node could hold the prompt even when idle, a node that takes both roles gets the whole request: the
// one where least is left to compute, as among prefill nodes, that has room as a decode node. To choose between the
// two takes a measured cost model, which comes later: of a transfer, and of a chunk for those that decode beside it.
Placement place_least_loaded(const PlacementQuery& query);

// Whom to ask for more room for a request that has to wait, and for how many blocks; `asked` are those that were asked
// for it already. Of the nodes that would hold it when idle: those asked, for a place in their line is worth more than
// a new one; those with room enough now, were it not others' to promise; and if there is none of these, the one with
// most of it. One at least, so it has its turn; seldom more, for a node that waits for room for one takes nothing of
// others. Where requests are colocated only nodes of both roles are asked. Prefill nodes are asked only while a decode
// node has room: gateways that hold what they were given on one role and wait for the other do it in one order, so no
// two wait for each other.
struct RoomWanted {
  PeerId node{};
  uint32_t blocks = 0;
  bool operator==(const RoomWanted&) const = default;
};
std::vector<RoomWanted> room_to_ask_for(const PlacementQuery& query, std::span<const PeerId> asked);

}  // namespace spillway
