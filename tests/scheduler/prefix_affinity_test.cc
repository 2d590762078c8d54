#include "scheduler/prefix_affinity.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "scheduler/placement.h"

namespace spillway {
namespace {

constexpr PeerId kP{1}, kP2{2}, kD{3}, kD2{4};

std::vector<TokenId> prompt(uint32_t tokens, TokenId first = 1) {
  std::vector<TokenId> made(tokens, TokenId{9});
  made[0] = first;
  return made;
}

TEST(PrefixChain, EqualAsFarAsThePromptsAreAndOfOneTenant) {
  std::vector<TokenId> other = prompt(300);
  other[200] = 1;
  const auto a = prefix_chain(5, prompt(300), 64, 8), b = prefix_chain(5, other, 64, 8);
  ASSERT_EQ(a.size(), 4u);
  EXPECT_TRUE(std::equal(a.begin(), a.begin() + 3, b.begin()));
  EXPECT_NE(a[3], b[3]);
  EXPECT_NE(prefix_chain(6, prompt(300), 64, 8)[0], a[0]);
  EXPECT_EQ(prefix_chain(5, prompt(300), 64, 2).size(), 2u);
  EXPECT_TRUE(prefix_chain(5, prompt(63), 64, 8).empty());
}

TEST(PrefixAffinity, RemembersTheLastPlaceOfEachPrefix) {
  PrefixAffinity affinity(100);
  const auto chain = prefix_chain(0, prompt(256), 64, 8);
  affinity.placed(chain, kP, kD);
  EXPECT_EQ(affinity.spans_at(chain, kP), 4u);
  EXPECT_EQ(affinity.spans_at(chain, kD), 4u);
  EXPECT_EQ(affinity.spans_at(chain, kP2), 0u);
  affinity.placed(std::span(chain).first(2), kP2, kD);  // what is longer is where it was
  EXPECT_EQ(affinity.spans_at(chain, kP), 4u);
  EXPECT_EQ(affinity.spans_at(chain, kP2), 2u);
  EXPECT_EQ(affinity.spans_at(prefix_chain(0, prompt(256, 2), 64, 8), kP), 0u);
}

TEST(PrefixAffinity, ForgetsLostNodesAndWhatWasPlacedLongestAgo) {
  PrefixAffinity affinity(6);
  const auto first = prefix_chain(1, prompt(256), 64, 8), second = prefix_chain(2, prompt(256), 64, 8);
  affinity.placed(first, kP, kD);
  affinity.placed(second, kP2, kD2);
  EXPECT_EQ(affinity.size(), 6u);
  EXPECT_EQ(affinity.spans_at(first, kP), 2u);  // from its end
  EXPECT_EQ(affinity.spans_at(second, kP2), 4u);
  affinity.forget(kP2);
  EXPECT_EQ(affinity.spans_at(second, kP2), 0u);
  EXPECT_EQ(affinity.spans_at(second, kD2), 4u);
  affinity.forget(kD2);
  EXPECT_EQ(affinity.size(), 2u);
}

std::vector<NodeView> two_pairs() {
  std::vector<NodeView> nodes(4);
  for (uint32_t at = 0; at < 4; ++at) {
    nodes[at].node = PeerId{at + 1};
    nodes[at].takes_prefill = at < 2;
    nodes[at].takes_decode = at >= 2;
    nodes[at].sequences_max = 1000;
    nodes[at].blocks_total = nodes[at].blocks_free = 1000;
  }
  return nodes;
}

TEST(Affinity, ANodeWithThePrefixIsPreferredUntilItsWorkOutweighsIt) {
  std::vector<NodeView> nodes = two_pairs();
  nodes[1].cached_tokens = nodes[3].cached_tokens = 640;
  nodes[1].queued_prompt_tokens = 639;
  nodes[3].blocks_free = 991;
  Placement placed = place_least_loaded({.prompt_tokens = 1000, .output_tokens_max = 10, .nodes = nodes});
  EXPECT_EQ(std::get<Disaggregate>(placed).prefill, kP2);
  EXPECT_EQ(std::get<Disaggregate>(placed).decode, kD2);
  nodes[1].queued_prompt_tokens = 641;
  nodes[3].blocks_free = 989;
  placed = place_least_loaded({.prompt_tokens = 1000, .output_tokens_max = 10, .nodes = nodes});
  EXPECT_EQ(std::get<Disaggregate>(placed).prefill, kP);
  EXPECT_EQ(std::get<Disaggregate>(placed).decode, kD);
}

TEST(Affinity, TheCapHoldsHoweverLongThePrefixIs) {
  std::vector<NodeView> nodes = two_pairs();
  nodes[1].cached_tokens = 100'000;
  nodes[1].queued_prompt_tokens = 4097;
  for (NodeView& node : nodes) node.blocks_total = node.blocks_free = 10'000;
  const Placement placed = place_least_loaded(
      {.prompt_tokens = 100'000, .output_tokens_max = 1, .nodes = nodes, .affinity_tokens_max = 4096});
  EXPECT_EQ(std::get<Disaggregate>(placed).prefill, kP);
}

TEST(Affinity, OnePrefixForAllUnderLoadSpreadsOverAllNodes) {
  std::vector<NodeView> nodes = two_pairs();
  for (NodeView& node : nodes) node.blocks_total = node.blocks_free = 10'000;
  PrefixAffinity affinity(1000);
  std::map<PeerId, uint32_t> placed_on;
  for (uint32_t request = 0; request < 200; ++request) {
    std::vector<TokenId> own = prompt(640);
    own.back() = TokenId{request};
    const auto chain = prefix_chain(0, own, 64, 64);
    for (NodeView& node : nodes) node.cached_tokens = affinity.spans_at(chain, node.node) * 64;
    const Placement placement = place_least_loaded(
        {.prompt_tokens = 640, .output_tokens_max = 64, .nodes = nodes, .affinity_tokens_max = 4096});
    const auto place = std::get<Disaggregate>(placement);
    affinity.placed(chain, place.prefill, place.decode);
    for (NodeView& node : nodes) {
      if (node.node == place.prefill) node.queued_prompt_tokens += 640 - std::min(node.cached_tokens, 639u);
      if (node.node == place.decode) node.blocks_promised += 11;
      if (node.node == place.prefill || node.node == place.decode) ++placed_on[node.node];
    }
    EXPECT_LE(std::max(nodes[0].queued_prompt_tokens, nodes[1].queued_prompt_tokens),
              std::min(nodes[0].queued_prompt_tokens, nodes[1].queued_prompt_tokens) + 2 * 640);
  }
  for (const PeerId node : {kP, kP2, kD, kD2}) EXPECT_NEAR(placed_on[node], 100, 20);
}

}  // namespace
}  // namespace spillway
