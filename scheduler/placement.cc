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
  bool computes_prompt = false;
};

// Would hold all the tokens if it were idle.
bool fits(const NodeView& node, const Demand& demand) {
  const uint64_t tokens = uint64_t{demand.prompt_tokens} + demand.output_tokens;
  return node.sequences_max > 0 && blocks_for(node, tokens) <= node.blocks_total;
}

uint64_t blocks_at_first(const NodeView& node, const Demand& demand) {
  return blocks_for(node, tokens_at_first(demand.prompt_tokens, demand.output_tokens, node.growth_margin));
}

bool takes_one_more(const NodeView& node, const Demand& demand) {
  return node.running_sequences < node.sequences_max && !(demand.computes_prompt && node.has_enough);
}

bool has_room(const NodeView& node, const Demand& demand) {
  return fits(node, demand) && takes_one_more(node, demand) && blocks_at_first(node, demand) <= blocks_left(node);
}

uint64_t blocks_left_in_all(const NodeView& node) {
  const uint64_t free = uint64_t{node.blocks_free} + node.blocks_of_others;
  return free > node.blocks_promised ? free - node.blocks_promised : 0;
}

// Would have room if all that is free were ours.
bool has_room_in_all(const NodeView& node, const Demand& demand) {
  return node.running_sequences < uint64_t{node.sequences_max} + node.sequences_of_others &&
         blocks_at_first(node, demand) <= blocks_left_in_all(node);
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

// What a node would be for a request.
using Part = bool (*)(const NodeView&);
bool prefills(const NodeView& node) { return node.takes_prefill && !node.takes_decode; }
bool decodes(const NodeView& node) { return node.takes_decode; }
bool colocates(const NodeView& node) { return node.takes_prefill && node.takes_decode; }

struct Demands {
  Demand prefill, decode, colocated;
  explicit Demands(const PlacementQuery& query)
      : prefill{query.prompt_tokens, 0, true},
        decode{query.prompt_tokens, query.output_tokens_max, false},
        colocated{query.prompt_tokens, query.output_tokens_max, true} {}
};

// One busy prefill node is worth waiting for; one that could never hold the prompt is as good as none.
bool is_colocated(const PlacementQuery& query, const Demands& demands) {
  const auto could = [&](const NodeView& node) { return prefills(node) && fits(node, demands.prefill); };
  return std::ranges::none_of(query.nodes, could) && std::ranges::any_of(query.nodes, colocates);
}

struct Choice {
  bool any = false;                // a node of this part exists
  bool fits = false;               // one could hold the request when idle
  const NodeView* node = nullptr;  // the best one with room
};

template <class Better>
Choice choose(std::span<const NodeView> nodes, Part part, const Demand& demand, Better better) {
  Choice choice;
  for (const NodeView& node : nodes) {
    if (!part(node)) continue;
    choice.any = true;
    choice.fits |= fits(node, demand);
    if (has_room(node, demand) && (choice.node == nullptr || better(node, *choice.node))) choice.node = &node;
  }
  return choice;
}

// The nodes of one part that are worth asking.
void ask(std::span<const NodeView> nodes, Part part, const Demand& demand, std::span<const PeerId> asked,
         std::vector<RoomWanted>& wanted) {
  const size_t before = wanted.size();
  const NodeView* most = nullptr;
  for (const NodeView& node : nodes) {
    if (!part(node) || (demand.computes_prompt && node.has_enough) || !fits(node, demand)) continue;
    if (has_room_in_all(node, demand) || std::ranges::find(asked, node.node) != asked.end())
      wanted.push_back({node.node, checked_cast<uint32_t>(blocks_at_first(node, demand))});
    if (most == nullptr || blocks_left_in_all(node) > blocks_left_in_all(*most)) most = &node;
  }
  if (wanted.size() == before && most != nullptr)
    wanted.push_back({most->node, checked_cast<uint32_t>(blocks_at_first(*most, demand))});
}

}  // namespace

std::vector<RoomWanted> room_to_ask_for(const PlacementQuery& query, std::span<const PeerId> asked) {
  const Demands demands(query);
  const auto any_has_room = [&](Part part, const Demand& demand) {
    return std::ranges::any_of(query.nodes, [&](const NodeView& node) { return part(node) && has_room(node, demand); });
  };
  std::vector<RoomWanted> wanted;
  if (is_colocated(query, demands)) {
    if (!any_has_room(colocates, demands.colocated)) ask(query.nodes, colocates, demands.colocated, asked, wanted);
    return wanted;
  }
  if (!any_has_room(decodes, demands.decode)) {
    ask(query.nodes, decodes, demands.decode, asked, wanted);
    return wanted;
  }
  for (const NodeView& node : query.nodes) {  // what one holds for us it goes on to hold
    if (decodes(node) && fits(node, demands.decode) && std::ranges::find(asked, node.node) != asked.end())
      wanted.push_back({node.node, checked_cast<uint32_t>(blocks_at_first(node, demands.decode))});
  }
  if (!any_has_room(prefills, demands.prefill)) ask(query.nodes, prefills, demands.prefill, asked, wanted);
  return wanted;
}

Placement place_least_loaded(const PlacementQuery& query) {
  CHECK(query.prompt_tokens > 0);
  const Demands demands(query);
  const auto less_work = [&](const NodeView& a, const NodeView& b) {
    return std::tuple(prefill_work(a, query), a.node) < std::tuple(prefill_work(b, query), b.node);
  };
  const auto more_room = [&](const NodeView& a, const NodeView& b) {
    const uint64_t room_a = blocks_left_or_shared(a, query), room_b = blocks_left_or_shared(b, query);
    return room_a != room_b ? room_a > room_b : a.node < b.node;
  };
  if (is_colocated(query, demands)) {
    const auto less_work_more_room = [&](const NodeView& a, const NodeView& b) {
      const uint64_t work_a = prefill_work(a, query), work_b = prefill_work(b, query);
      return work_a != work_b ? work_a < work_b : more_room(a, b);
    };
    const Choice both = choose(query.nodes, colocates, demands.colocated, less_work_more_room);
    if (!both.fits) return Refuse{RefuseReason::kNeverFits};
    if (both.node == nullptr) return Wait{};
    return Colocate{both.node->node};
  }
  const Choice prefill = choose(query.nodes, prefills, demands.prefill, less_work);
  if (!prefill.any) return Refuse{RefuseReason::kNoPrefillNode};
  const Choice decode = choose(query.nodes, decodes, demands.decode, more_room);
  if (!decode.any) return Refuse{RefuseReason::kNoDecodeNode};
  if (!prefill.fits || !decode.fits) return Refuse{RefuseReason::kNeverFits};
  if (prefill.node == nullptr || decode.node == nullptr) return Wait{};
  return Disaggregate{prefill.node->node, decode.node->node};
}

}  // namespace spillway
