#include "transfer/kv_receiver.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <set>
#include <utility>
#include <vector>

namespace spillway {
namespace {

constexpr TransferId kTransfer{BootId{1}, 1};
constexpr Epoch kEpoch{3};
constexpr PeerId kPeer{7};
using Landing = KvReceiver::Landing;

struct Fixture {
  Fixture(uint16_t layers, uint32_t blocks)
      : cache({.layout = {.layer_count = layers, .kv_heads = 1, .head_dim = 8, .block_tokens = 16},
               .model = {},
               .encoding = {},
               .slot_count = 16}),
        receiver({.layer_count = layers, .transfers_max = 2}, cache) {
    EXPECT_TRUE(cache.reserve(blocks, owners));
    for (const SlotPin& pin : owners) slots.push_back(pin.slot());
  }
  uint32_t writers(uint32_t block) const { return cache.pool().count(slots[block], PinKind::kWriter); }

  KvCache cache;
  std::vector<SlotPin> owners;
  std::vector<SlotId> slots;
  KvReceiver receiver;
};

TEST(KvReceiver, IsCompleteExactlyWhenEveryPartLandedInAnyOrder) {
  EXPECT_TRUE(rc::check([] {
    const auto layers = *rc::gen::inRange<uint16_t>(1, 5);
    const auto blocks = *rc::gen::inRange(1u, 5u);
    const auto first_block = *rc::gen::inRange(0u, 3u);
    Fixture f(layers, blocks);
    RC_ASSERT(f.receiver.open(kTransfer, kEpoch, kPeer, first_block, f.slots).has_value());
    std::set<std::pair<uint32_t, uint32_t>> landed;
    const size_t wanted = size_t{layers} * blocks;
    for (int tries = 0; landed.size() < wanted && tries < 400; ++tries) {
      const auto block = *rc::gen::inRange(0u, first_block + blocks + 1);
      const auto first = *rc::gen::inRange<uint16_t>(0, layers);
      const auto count = *rc::gen::inRange<uint16_t>(1, static_cast<uint16_t>(layers - first + 1));
      const size_t before = landed.size();
      if (block >= first_block && block < first_block + blocks) {
        for (uint32_t layer = first; layer < uint32_t{first} + count; ++layer) landed.emplace(block, layer);
      }
      const Landing landing = f.receiver.on(PartsLanded{kTransfer, kEpoch, block, {first, count}, true});
      const Landing expected = landed.size() == before ? Landing::kIgnored : Landing::kCounted;
      RC_ASSERT(landing == expected);
      RC_ASSERT(f.receiver.complete(kTransfer) == (landed.size() == wanted));
      f.receiver.check_conservation();
    }
  }));
}

TEST(KvReceiver, NamesTheDestinationsInOrder) {
  Fixture f(2, 3);
  const auto job = f.receiver.open(kTransfer, kEpoch, kPeer, 4, f.slots);
  ASSERT_TRUE(job);
  EXPECT_EQ(job->transfer, kTransfer);
  EXPECT_EQ(job->epoch, kEpoch);
  EXPECT_EQ(job->from, kPeer);
  EXPECT_EQ(job->first_block, 4u);
  EXPECT_EQ(job->slots, f.slots);
}

TEST(KvReceiver, ASlotIsNotFreeBeforeTransferClosedCameBack) {
  Fixture f(1, 2);
  f.receiver.open(kTransfer, kEpoch, kPeer, 0, f.slots);
  f.owners.clear();
  EXPECT_EQ(f.cache.counts().held, 2u);
  ASSERT_TRUE(f.receiver.close(kTransfer));
  EXPECT_FALSE(f.receiver.close(kTransfer));  // once
  EXPECT_EQ(f.cache.counts().held, 2u);
  EXPECT_EQ(f.receiver.open_transfers(), 1u);
  f.receiver.on(TransferClosed{kTransfer, Epoch{2}});
  EXPECT_EQ(f.cache.counts().held, 2u);
  f.receiver.on(TransferClosed{kTransfer, kEpoch});
  EXPECT_EQ(f.cache.counts().held, 0u);
  EXPECT_EQ(f.receiver.open_transfers(), 0u);
}

TEST(KvReceiver, TransferClosedOfAnOpenTransferReleasesNothing) {
  Fixture f(1, 1);
  f.receiver.open(kTransfer, kEpoch, kPeer, 0, f.slots);
  f.receiver.on(TransferClosed{kTransfer, kEpoch});
  EXPECT_EQ(f.writers(0), 1u);
  EXPECT_TRUE(f.receiver.knows(kTransfer));
  f.receiver.close(kTransfer);
  f.receiver.on(TransferClosed{kTransfer, kEpoch});
  EXPECT_EQ(f.writers(0), 0u);
}

TEST(KvReceiver, StaleEpochNeverLands) {
  Fixture f(1, 1);
  f.receiver.open(kTransfer, kEpoch, kPeer, 0, f.slots);
  EXPECT_EQ(f.receiver.on(PartsLanded{kTransfer, Epoch{2}, 0, {0, 1}, true}), Landing::kIgnored);
  EXPECT_EQ(f.receiver.on(PartsLanded{TransferId{BootId{1}, 2}, kEpoch, 0, {0, 1}, true}), Landing::kIgnored);
  EXPECT_EQ(f.receiver.on(PartsLanded{kTransfer, kEpoch, 0, {1, 1}, true}), Landing::kIgnored);  // no such layer
  EXPECT_FALSE(f.receiver.complete(kTransfer));
}

TEST(KvReceiver, CorruptPartsDoNotCount) {
  Fixture f(1, 1);
  f.receiver.open(kTransfer, kEpoch, kPeer, 0, f.slots);
  EXPECT_EQ(f.receiver.on(PartsLanded{kTransfer, kEpoch, 0, {0, 1}, false}), Landing::kCorrupt);
  EXPECT_FALSE(f.receiver.complete(kTransfer));
}

TEST(KvReceiver, PartsThatLandWhileClosingAreIgnored) {
  Fixture f(1, 1);
  f.receiver.open(kTransfer, kEpoch, kPeer, 0, f.slots);
  f.receiver.close(kTransfer);
  EXPECT_EQ(f.receiver.on(PartsLanded{kTransfer, kEpoch, 0, {0, 1}, true}), Landing::kIgnored);
  EXPECT_FALSE(f.receiver.complete(kTransfer));
  f.receiver.on(TransferClosed{kTransfer, kEpoch});
}

TEST(KvReceiver, WithNothingWantedItIsCompleteAtOnceWithoutAJob) {
  Fixture f(2, 0);
  EXPECT_FALSE(f.receiver.open(kTransfer, kEpoch, kPeer, 5, {}));
  EXPECT_TRUE(f.receiver.complete(kTransfer));
  EXPECT_FALSE(f.receiver.close(kTransfer));
  EXPECT_FALSE(f.receiver.knows(kTransfer));
}

TEST(KvReceiver, ClosingTransfersTakeRoom) {
  Fixture f(1, 2);
  f.receiver.open(kTransfer, kEpoch, kPeer, 0, {f.slots[0]});
  f.receiver.open(TransferId{BootId{1}, 2}, kEpoch, kPeer, 0, {f.slots[1]});
  f.receiver.close(kTransfer);
  EXPECT_FALSE(f.receiver.has_room());
  f.receiver.on(TransferClosed{kTransfer, kEpoch});
  EXPECT_TRUE(f.receiver.has_room());
}

}  // namespace
}  // namespace spillway
