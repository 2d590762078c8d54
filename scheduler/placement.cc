#include "scheduler/placement.h"

#include <algorithm>
#include <tuple>

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

bool less_prefill_work(const NodeView& a, const NodeView& b) {
  return std::tuple(a.queued_prompt_tokens, a.node) < std::tuple(b.queued_prompt_tokens, b.node);
}

bool more_free_blocks(const NodeView& a, const NodeView& b) {
  const uint64_t free_a = blocks_left(a), free_b = blocks_left(b);
  return free_a != free_b ? free_a > free_b : a.node < b.node;
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
  const Choice prefill = choose(query.nodes, &NodeView::takes_prefill, {query.prompt_tokens, 0}, less_prefill_work);
  if (!prefill.any) return Refuse{RefuseReason::kNoPrefillNode};
  const Choice decode =
      choose(query.nodes, &NodeView::takes_decode, {query.prompt_tokens, query.output_tokens_max}, more_free_blocks);
  if (!decode.any) return Refuse{RefuseReason::kNoDecodeNode};
  if (!prefill.fits || !decode.fits) return Refuse{RefuseReason::kNeverFits};
  if (prefill.node == nullptr || decode.node == nullptr) return Wait{};
  return Disaggregate{prefill.node->node, decode.node->node};
}

}  // namespace spillway
