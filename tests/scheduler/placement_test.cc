#include "scheduler/placement.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>

namespace spillway {
namespace {

NodeView prefill(uint32_t id) {
  return {.node = PeerId{id}, .takes_prefill = true, .sequences_max = 4, .blocks_total = 10, .blocks_free = 10};
}
NodeView decode(uint32_t id) {
  NodeView node = prefill(id);
  node.takes_prefill = false;
  node.takes_decode = true;
  return node;
}
Placement place(const std::vector<NodeView>& nodes, uint32_t prompt = 100, uint32_t output = 28) {
  return place_least_loaded({prompt, output, nodes});
}
std::optional<RefuseReason> refused(const Placement& placement) {
  const auto* refuse = std::get_if<Refuse>(&placement);
  return refuse ? std::optional(refuse->reason) : std::nullopt;
}

TEST(Placement, TakesLeastQueuedPrefillAndMostFreeDecode) {
  std::vector<NodeView> nodes{prefill(0), prefill(1), decode(2), decode(3)};
  nodes[0].queued_prompt_tokens = 1;
  nodes[2].blocks_promised = 3;
  nodes[3].blocks_free = 8;
  const auto chosen = std::get<Disaggregate>(place(nodes));
  EXPECT_EQ(chosen.prefill, PeerId{1});
  EXPECT_EQ(chosen.decode, PeerId{3});
}

TEST(Placement, TiesGoToTheLowerPeer) {
  const std::vector<NodeView> nodes{prefill(5), prefill(2), decode(9), decode(7)};
  const auto chosen = std::get<Disaggregate>(place(nodes));
  EXPECT_EQ(chosen.prefill, PeerId{2});
  EXPECT_EQ(chosen.decode, PeerId{7});
}

TEST(Placement, MissingRoleIsRefusedByName) {
  EXPECT_EQ(refused(place({decode(1)})), RefuseReason::kNoPrefillNode);
  EXPECT_EQ(refused(place({prefill(1)})), RefuseReason::kNoDecodeNode);
  EXPECT_EQ(refused(place({})), RefuseReason::kNoPrefillNode);
}

TEST(Placement, RequestThatNeverFitsIsRefusedNotQueued) {
  // Ten blocks of 64 tokens hold 640.
  EXPECT_TRUE(std::holds_alternative<Disaggregate>(place({prefill(0), decode(1)}, 600, 40)));
  EXPECT_EQ(refused(place({prefill(0), decode(1)}, 600, 41)), RefuseReason::kNeverFits);
  EXPECT_EQ(refused(place({prefill(0), decode(1)}, 641, 1)), RefuseReason::kNeverFits);
  constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
  EXPECT_EQ(refused(place({prefill(0), decode(1)}, 1, kMost)), RefuseReason::kNeverFits);  // the sum passes 32 bits
}

TEST(Placement, BusyNodesMeanWait) {
  for (const size_t busy : {0, 1}) {
    std::vector<NodeView> nodes{prefill(0), decode(1)};
    nodes[busy].running_sequences = 4;
    EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes))) << busy;
    nodes[busy].running_sequences = 0;
    nodes[busy].blocks_free = 1;
    EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes))) << busy;
    nodes[busy].blocks_free = 10;
    nodes[busy].blocks_promised = 9;
    EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes))) << busy;
    nodes[busy].blocks_promised = 11;  // more than is free: a Load crossed a promise
    EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes))) << busy;
  }
}

NodeView both(uint32_t id) {
  NodeView node = decode(id);
  node.takes_prefill = true;
  return node;
}
std::optional<PeerId> colocated(const Placement& placement) {
  const auto* const one = std::get_if<Colocate>(&placement);
  return one ? std::optional(one->decode) : std::nullopt;
}

TEST(Placement, WithoutAPrefillNodeOneNodeThatTakesBothGetsTheWhole) {
  EXPECT_EQ(colocated(place({decode(1), both(2)})), PeerId{2});
  EXPECT_TRUE(std::holds_alternative<Disaggregate>(place({prefill(0), both(2)})));
  std::vector<NodeView> nodes{both(1), both(2), both(3)};
  EXPECT_EQ(colocated(place(nodes)), PeerId{1});
  nodes[0].queued_prompt_tokens = 1;
  EXPECT_EQ(colocated(place(nodes)), PeerId{2}) << "least to compute";
  nodes[1].blocks_free = 9;
  EXPECT_EQ(colocated(place(nodes)), PeerId{3}) << "of those the one with most room";
  nodes[0].cached_tokens = 64;
  EXPECT_EQ(colocated(place(nodes)), PeerId{1}) << "the prefix is there";
}

TEST(Placement, ABusyPrefillNodeIsWaitedForButNotOneThatCouldNeverHoldThePrompt) {
  std::vector<NodeView> nodes{prefill(0), both(1)};
  nodes[0].running_sequences = 4;
  EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes)));
  nodes[0].blocks_total = 1;
  EXPECT_EQ(colocated(place(nodes)), PeerId{1});
}

TEST(Placement, ANodeThatTakesBothNeedsRoomForPromptAndOutput) {
  EXPECT_EQ(colocated(place({both(1)}, 600, 40)), PeerId{1});
  EXPECT_EQ(refused(place({both(1)}, 600, 41)), RefuseReason::kNeverFits);
  std::vector<NodeView> nodes{both(1)};
  nodes[0].blocks_free = 1;
  EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes, 64, 28)));
  nodes[0].growth_margin = 0;
  EXPECT_EQ(colocated(place(nodes, 64, 28)), PeerId{1});
}

TEST(Placement, ANodeWithEnoughToComputeTakesNoPromptButDecodes) {
  std::vector<NodeView> nodes{both(1)};
  nodes[0].has_enough = true;
  EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes)));
  nodes.insert(nodes.begin(), prefill(0));
  EXPECT_TRUE(std::holds_alternative<Disaggregate>(place(nodes)));
  nodes[0].has_enough = true;
  EXPECT_TRUE(std::holds_alternative<Wait>(place(nodes)));
}

std::vector<RoomWanted> ask(const std::vector<NodeView>& nodes, const std::vector<PeerId>& asked = {}) {
  return room_to_ask_for({100, 28, nodes}, asked);  // two blocks on either
}

TEST(RoomToAskFor, TheNodeWithMostOfItWhenNoneHasEnough) {
  std::vector<NodeView> nodes{prefill(0), decode(1), decode(2), decode(3)};
  for (NodeView& node : nodes) node.blocks_free = 0;
  nodes[2].blocks_of_others = 1;
  EXPECT_EQ(ask(nodes), (std::vector<RoomWanted>{{PeerId{2}, 2}}));
  EXPECT_EQ(ask(nodes, {PeerId{3}}), (std::vector<RoomWanted>{{PeerId{3}, 2}})) << "it keeps its place in the line";
  nodes[3].blocks_total = 1;  // would never hold it
  EXPECT_EQ(ask(nodes, {PeerId{3}}), (std::vector<RoomWanted>{{PeerId{2}, 2}}));
}

TEST(RoomToAskFor, AndThoseWhereOnlyOthersMayPromiseIt) {
  std::vector<NodeView> nodes{prefill(0), decode(1), decode(2), decode(3)};
  for (NodeView& node : nodes) node.blocks_free = 0;
  nodes[2].blocks_of_others = 2;
  nodes[3].blocks_of_others = 3;
  EXPECT_EQ(ask(nodes, {PeerId{1}}), (std::vector<RoomWanted>{{PeerId{1}, 2}, {PeerId{2}, 2}, {PeerId{3}, 2}}));
  nodes[3].running_sequences = 4;
  EXPECT_EQ(ask(nodes), (std::vector<RoomWanted>{{PeerId{2}, 2}})) << "no sequence is left there";
  nodes[3].sequences_of_others = 1;
  EXPECT_EQ(ask(nodes).size(), 2u);
}

TEST(RoomToAskFor, PrefillNodesOnlyWhileADecodeNodeHasRoom) {
  std::vector<NodeView> nodes{prefill(0), prefill(1), decode(2)};
  nodes[0].blocks_free = nodes[1].blocks_free = nodes[2].blocks_free = 1;
  EXPECT_EQ(ask(nodes, {PeerId{0}, PeerId{2}}), (std::vector<RoomWanted>{{PeerId{2}, 2}}));
  nodes[2].blocks_free = 2;
  EXPECT_EQ(ask(nodes, {PeerId{2}}), (std::vector<RoomWanted>{{PeerId{2}, 2}, {PeerId{0}, 2}})) << "in this order";
  EXPECT_EQ(ask(nodes), (std::vector<RoomWanted>{{PeerId{0}, 2}}));
  nodes[0].has_enough = nodes[1].has_enough = true;
  EXPECT_TRUE(ask(nodes).empty());
}

TEST(RoomToAskFor, WhereRequestsAreColocatedOnlyNodesOfBothRoles) {
  std::vector<NodeView> nodes{decode(1), both(2), both(3)};
  for (NodeView& node : nodes) node.blocks_free = 0;
  nodes[0].blocks_of_others = nodes[2].blocks_of_others = 1;
  EXPECT_EQ(ask(nodes), (std::vector<RoomWanted>{{PeerId{3}, 2}}));
  nodes[2].has_enough = true;
  EXPECT_EQ(ask(nodes), (std::vector<RoomWanted>{{PeerId{2}, 2}}));
  nodes[1].blocks_free = 2;
  EXPECT_TRUE(ask(nodes).empty());
  nodes.push_back(prefill(4));
  nodes[1].blocks_free = 0;
  EXPECT_EQ(ask(nodes), (std::vector<RoomWanted>{{PeerId{1}, 2}})) << "with a prefill node it is for decoding alone";
}

bool has_room(const NodeView& node, uint64_t tokens) {
  const uint64_t blocks = (tokens + node.block_tokens - 1) / node.block_tokens;
  return node.running_sequences < node.sequences_max && node.blocks_total >= blocks &&
         uint64_t{node.blocks_free} >= node.blocks_promised + blocks;
}

RC_GTEST_PROP(Placement, ChosenNodesHaveRoomAndNoneIsBetter, ()) {
  const auto prompt = *rc::gen::inRange(1u, 400u), output = *rc::gen::inRange(1u, 400u);
  std::vector<NodeView> nodes;
  const auto count = *rc::gen::inRange(0u, 7u);
  for (uint32_t id = 0; id < count; ++id) {
    NodeView node = *rc::gen::arbitrary<bool>() ? prefill(id) : decode(id);
    node.queued_prompt_tokens = *rc::gen::inRange(0u, 3u);
    node.running_sequences = *rc::gen::inRange(0u, 5u);
    node.blocks_free = *rc::gen::inRange(0u, 11u);
    node.blocks_promised = *rc::gen::inRange(0u, 4u);
    nodes.push_back(node);
  }
  const Placement placement = place(nodes, prompt, output);
  const auto roomy = [&](bool NodeView::*role, uint64_t tokens) {
    return std::ranges::any_of(nodes, [&](const NodeView& node) { return node.*role && has_room(node, tokens); });
  };
  const bool possible = roomy(&NodeView::takes_prefill, prompt) && roomy(&NodeView::takes_decode, prompt + output);
  RC_ASSERT(std::holds_alternative<Disaggregate>(placement) == possible);
  if (!possible) return;
  const auto& chosen = std::get<Disaggregate>(placement);
  const auto& p = *std::ranges::find(nodes, chosen.prefill, &NodeView::node);
  const auto& d = *std::ranges::find(nodes, chosen.decode, &NodeView::node);
  RC_ASSERT(p.takes_prefill && has_room(p, prompt));
  RC_ASSERT(d.takes_decode && has_room(d, prompt + output));
  for (const NodeView& node : nodes) {
    if (node.takes_prefill && has_room(node, prompt)) {
      RC_ASSERT(std::tuple(p.queued_prompt_tokens, p.node) <= std::tuple(node.queued_prompt_tokens, node.node));
    }
    if (node.takes_decode && has_room(node, prompt + output)) {
      RC_ASSERT(d.blocks_free - d.blocks_promised >= node.blocks_free - node.blocks_promised);
    }
  }
}

}  // namespace
}  // namespace spillway
