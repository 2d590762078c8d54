#include "kv/prefix_index.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace spillway {
namespace {

const BlockEncoding kOwn{.numerics = NumericsClass{2}};

BlockKey key(unsigned number) {
  BlockKey made;
  made.bytes[0] = static_cast<std::byte>(number);
  return made;
}

// Block `number` in slot `number` with tokens {number, number}; parent 0: first block.
PrefixIndex::Entry block(unsigned number, unsigned parent) {
  return {SlotId{number}, key(number), key(parent), {number, number}, kOwn};
}

std::optional<BlockKey> oldest(const PrefixIndex& index) {
  return index.oldest([](SlotId) { return true; });
}

TEST(PrefixIndex, FindsWhatWasInserted) {
  PrefixIndex index(4);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  const std::vector<TokenId> tokens{2, 2};
  EXPECT_EQ(index.find(key(2), key(1), tokens, kOwn), SlotId{2});
  EXPECT_EQ(index.find(key(3), key(1), tokens, kOwn), std::nullopt);
}

TEST(PrefixIndex, KeyCollisionIsAMissNeverServed) {
  PrefixIndex index(4);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  // The same key for other tokens, other lengths or another prefix, as a forged or unlucky HMAC would give.
  EXPECT_EQ(index.find(key(2), key(1), std::vector<TokenId>{2, 3}, kOwn), std::nullopt);
  EXPECT_EQ(index.find(key(2), key(1), std::vector<TokenId>{2}, kOwn), std::nullopt);
  EXPECT_EQ(index.find(key(2), key(1), std::vector<TokenId>{2, 2, 2}, kOwn), std::nullopt);
  EXPECT_EQ(index.find(key(2), key(0), std::vector<TokenId>{2, 2}, kOwn), std::nullopt);
}

TEST(PrefixIndex, OtherEncodingIsAMiss) {
  PrefixIndex index(1);
  index.insert(block(1, 0));
  const std::vector<TokenId> tokens{1, 1};
  EXPECT_EQ(index.find(key(1), {}, tokens, {.numerics = NumericsClass{1}}), std::nullopt);
  EXPECT_EQ(index.find(key(1), {}, tokens, {.order = BlockEncoding::Order::kCanonical, .numerics = NumericsClass{2}}),
            std::nullopt);
  EXPECT_EQ(index.find(key(1), {}, tokens, {.dtype = KvDtype::kInt8, .numerics = NumericsClass{2}}), std::nullopt);
}

TEST(PrefixIndex, EvictsTailBeforeHead) {
  PrefixIndex index(3);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  index.insert(block(3, 2));
  for (const unsigned expected : {3u, 2u, 1u}) {
    ASSERT_EQ(oldest(index), key(expected));
    index.erase(key(expected));
    index.check_conservation();
  }
  EXPECT_EQ(oldest(index), std::nullopt);
}

TEST(PrefixIndex, EvictsTheLeastRecentlyTouchedBranchFirst) {
  PrefixIndex index(4);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  index.insert(block(3, 1));
  EXPECT_EQ(oldest(index), key(2));
  index.touch(std::vector{key(1), key(2)});
  EXPECT_EQ(oldest(index), key(3));
  index.erase(key(3));
  EXPECT_EQ(oldest(index), key(2));
  index.check_conservation();
}

TEST(PrefixIndex, RefusedLeafIsPassedOverAndItsPrefixStays) {
  PrefixIndex index(4);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  index.insert(block(3, 0));
  const auto not_two = [](SlotId slot) { return slot != SlotId{2}; };
  EXPECT_EQ(index.oldest(not_two), key(3));
  index.erase(key(3));
  EXPECT_EQ(index.oldest(not_two), std::nullopt);  // 1 is unheld, but 2 was computed over it
}

TEST(PrefixIndex, EvictableExcludesHeldBlocksAndTheirPrefixes) {
  PrefixIndex index(6);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  index.insert(block(3, 2));
  index.insert(block(4, 2));
  index.insert(block(5, 0));
  const auto count = [&](std::vector<unsigned> held) {
    return index.evictable([&](SlotId slot) { return std::ranges::count(held, static_cast<unsigned>(slot)) > 0; });
  };
  EXPECT_EQ(count({}), 5u);
  EXPECT_EQ(count({2}), 3u);
  EXPECT_EQ(count({3, 4}), 1u);
  EXPECT_EQ(count({1, 2, 3}), 2u);
  EXPECT_EQ(count({5}), 4u);
}

TEST(PrefixIndex, EraseSubtreeTakesDescendantsOnly) {
  PrefixIndex index(6);
  index.insert(block(1, 0));
  index.insert(block(2, 1));
  index.insert(block(3, 2));
  index.insert(block(4, 2));
  index.insert(block(5, 1));
  auto slots = index.erase_subtree(key(2));
  index.check_conservation();
  ASSERT_EQ(slots.size(), 3u);
  EXPECT_EQ(slots.back(), SlotId{2});
  std::ranges::sort(slots);
  EXPECT_EQ(slots, (std::vector{SlotId{2}, SlotId{3}, SlotId{4}}));
  EXPECT_EQ(index.size(), 2u);
  EXPECT_TRUE(index.erase_subtree(key(2)).empty());
}

TEST(PrefixIndexDeathTest, ProgrammerErrorsAreCaught) {
  PrefixIndex index(2);
  EXPECT_DEATH(index.insert(block(2, 1)), "CHECK failed");  // no such parent
  index.insert(block(1, 0));
  EXPECT_DEATH(index.insert(block(1, 0)), "CHECK failed");  // twice
  index.insert(block(2, 1));
  EXPECT_DEATH(index.insert(block(3, 0)), "CHECK failed");  // over the bound
  EXPECT_DEATH(index.erase(key(1)), "CHECK failed");        // has a child
  EXPECT_DEATH(index.erase(key(9)), "CHECK failed");        // absent
}

}  // namespace
}  // namespace spillway
