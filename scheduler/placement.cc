#include "scheduler/placement.h"

#include <algorithm>
#include <tuple>

#include "common/check.h"

namespace spillway {
namespace {

uint64_t blocks_for(const NodeView& node, uint64_t tokens) {
  const uint64_t block_tokens = std::max(node.block_tokens, 1u);
  return (tokens + block_tokens - 1) / block_tokens;
}

uint64_t blocks_left(const NodeView& node) {
  return node.blocks_free > node.blocks_promised ? node.blocks_free - node.blocks_promised : 0;
}

struct Demand {
  uint32_t prompt_tokens = 0, output_tokens = 0;
};

// Would hold all the tokens if it were idle.
bool fits(const NodeView& node, const Demand& demand) {
  const uint64_t tokens = uint64_t{demand.prompt_tokens} + demand.output_tokens;
  return node.sequences_max > 0 && blocks_for(node, tokens) <= node.blocks_total;
}

bool has_room(const NodeView& node, const Demand& demand) {
  const uint64_t tokens = tokens_at_first(demand.prompt_tokens, demand.output_tokens, node.growth_margin);
  return fits(node, demand) && node.running_sequences < node.sequences_max &&
         blocks_for(node, tokens) <= blocks_left(node);
}

// Tokens, of any node more than zero: the last token of a prompt is computed always.
uint64_t prefill_work(const NodeView& node, const PlacementQuery& query) {
  const uint32_t cached = std::min({node.cached_tokens, query.affinity_tokens_max, query.prompt_tokens - 1});
  return uint64_t{node.queued_prompt_tokens} + query.prompt_tokens - cached;
}

uint64_t blocks_left_or_shared(const NodeView& node, const PlacementQuery& query) {
  const uint32_t cached = std::min({node.cached_tokens, query.affinity_tokens_max, query.prompt_tokens});
  return blocks_left(node) + cached / std::max(node.block_tokens, 1u);
}

struct Choice {
  bool any = false;                // a node of this role exists
  bool fits = false;               // one could hold the request when idle
  const NodeView* node = nullptr;  // the best one with room
};

template <class Better>
Choice choose(std::span<const NodeView> nodes, bool NodeView::*role, const Demand& demand, Better better) {
  Choice choice;
  for (const NodeView& node : nodes) {
    if (!(node.*role)) continue;
    choice.any = true;
    choice.fits |= fits(node, demand);
    if (has_room(node, demand) && (choice.node == nullptr || better(node, *choice.node))) choice.node = &node;
  }
  return choice;
}

}  // namespace

Placement place_least_loaded(const PlacementQuery& query) {
  CHECK(query.prompt_tokens > 0);
  const auto less_work = [&](const NodeView& a, const NodeView& b) {
    return std::tuple(prefill_work(a, query), a.node) < std::tuple(prefill_work(b, query), b.node);
  };
  const auto more_room = [&](const NodeView& a, const NodeView& b) {
    const uint64_t room_a = blocks_left_or_shared(a, query), room_b = blocks_left_or_shared(b, query);
    return room_a != room_b ? room_a > room_b : a.node < b.node;
  };
  const Choice prefill = choose(query.nodes, &NodeView::takes_prefill, {query.prompt_tokens, 0}, less_work);
  if (!prefill.any) return Refuse{RefuseReason::kNoPrefillNode};
  const Choice decode =
      choose(query.nodes, &NodeView::takes_decode, {query.prompt_tokens, query.output_tokens_max}, more_room);
  if (!decode.any) return Refuse{RefuseReason::kNoDecodeNode};
  if (!prefill.fits || !decode.fits) return Refuse{RefuseReason::kNeverFits};
  if (prefill.node == nullptr || decode.node == nullptr) return Wait{};
  return Disaggregate{prefill.node->node, decode.node->node};
}

}  // namespace spillway
