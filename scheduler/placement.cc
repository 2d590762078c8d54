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

// Would hold the tokens if it were idle.
bool fits(const NodeView& node, uint64_t tokens) {
  return node.sequences_max > 0 && blocks_for(node, tokens) <= node.blocks_total;
}

bool has_room(const NodeView& node, uint64_t tokens) {
  return fits(node, tokens) && node.running_sequences < node.sequences_max &&
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
Choice choose(std::span<const NodeView> nodes, bool NodeView::*role, uint64_t tokens, Better better) {
  Choice choice;
  for (const NodeView& node : nodes) {
    if (!(node.*role)) continue;
    choice.any = true;
    choice.fits |= fits(node, tokens);
    if (has_room(node, tokens) && (choice.node == nullptr || better(node, *choice.node))) choice.node = &node;
  }
  return choice;
}

}  // namespace

Placement place_least_loaded(const PlacementQuery& query) {
  const uint64_t prompt = query.prompt_tokens;
  const Choice prefill = choose(query.nodes, &NodeView::takes_prefill, prompt, less_prefill_work);
  if (!prefill.any) return Refuse{RefuseReason::kNoPrefillNode};
  const Choice decode =
      choose(query.nodes, &NodeView::takes_decode, prompt + query.output_tokens_max, more_free_blocks);
  if (!decode.any) return Refuse{RefuseReason::kNoDecodeNode};
  if (!prefill.fits || !decode.fits) return Refuse{RefuseReason::kNeverFits};
  if (prefill.node == nullptr || decode.node == nullptr) return Wait{};
  return Disaggregate{prefill.node->node, decode.node->node};
}

}  // namespace spillway
