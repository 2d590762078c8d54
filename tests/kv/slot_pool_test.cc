#include "kv/slot_pool.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <set>
#include <utility>

namespace spillway {
namespace {

TEST(SlotPool, HandsOutEachSlotOnce) {
  SlotPool pool(5);
  std::vector<SlotPin> pins;
  std::set<SlotId> slots;
  while (auto pin = pool.acquire()) {
    slots.insert(pin->slot());
    pins.push_back(std::move(*pin));
  }
  EXPECT_EQ(slots.size(), 5u);
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_EQ(pool.held_count(), 5u);
  pins.clear();
  EXPECT_EQ(pool.free_count(), 5u);
  pool.check_conservation();
}

class EachPinKind : public testing::TestWithParam<PinKind> {};

TEST_P(EachPinKind, KeepsASlotFromBeingFree) {
  SlotPool pool(1);
  auto owner = pool.acquire();
  pool.set_cached(owner->slot(), true);  // so that a further owner is allowed too
  SlotPin pin = pool.pin(owner->slot(), GetParam());
  pool.set_cached(owner->slot(), false);
  owner->release();
  EXPECT_EQ(pool.free_count(), 0u);
  EXPECT_EQ(pool.count(pin.slot(), GetParam()), 1u);
  EXPECT_FALSE(pool.acquire().has_value());
  pin.release();
  EXPECT_EQ(pool.free_count(), 1u);
}
INSTANTIATE_TEST_SUITE_P(Kinds, EachPinKind,
                         testing::Values(PinKind::kOwner, PinKind::kReader, PinKind::kWriter, PinKind::kTierIo));

TEST(SlotPool, CachedSlotIsNotFreeWithoutHolds) {
  SlotPool pool(1);
  auto owner = pool.acquire();
  const SlotId slot = owner->slot();
  pool.set_cached(slot, true);
  owner->release();
  EXPECT_FALSE(pool.is_held(slot));
  EXPECT_EQ(pool.free_count(), 0u);
  pool.set_cached(slot, false);
  EXPECT_EQ(pool.free_count(), 1u);
}

TEST(SlotPin, MovesTheHoldAndNeverCopiesIt) {
  static_assert(!std::is_copy_constructible_v<SlotPin> && !std::is_copy_assignable_v<SlotPin>);
  SlotPool pool(2);
  SlotPin a = std::move(*pool.acquire()), b = std::move(*pool.acquire());
  const SlotId kept = b.slot();
  a = std::move(b);  // a's own hold ends
  EXPECT_FALSE(b);
  EXPECT_EQ(a.slot(), kept);
  EXPECT_EQ(pool.held_count(), 1u);
  SlotPin& same = a;
  a = std::move(same);
  EXPECT_TRUE(a);
  EXPECT_EQ(pool.held_count(), 1u);
  a.release();
  a.release();
  EXPECT_EQ(pool.free_count(), 2u);
}

TEST(SlotPoolDeathTest, ProgrammerErrorsAreCaught) {
  SlotPool pool(1);
  EXPECT_DEATH(pool.pin(SlotId{0}, PinKind::kReader), "CHECK failed");  // free
  EXPECT_DEATH(pool.pin(SlotId{1}, PinKind::kReader), "CHECK failed");  // no such slot
  EXPECT_DEATH(pool.set_cached(SlotId{0}, true), "CHECK failed");       // free
  const auto owner = pool.acquire();
  EXPECT_DEATH(pool.pin(SlotId{0}, PinKind::kOwner), "CHECK failed");  // an open slot has one owner
  EXPECT_DEATH(
      {
        SlotPin outlives;
        SlotPool short_lived(1);
        outlives = std::move(*short_lived.acquire());
        short_lived.~SlotPool();
      },
      "CHECK failed");
}

// Random operations against the plainest model: a multiset of (slot, kind) and a set of cached slots.
RC_GTEST_PROP(SlotPool, ConservesSlotsOverAnyOperations, ()) {
  constexpr uint32_t kSlots = 4;
  SlotPool pool(kSlots);
  std::vector<std::pair<SlotPin, PinKind>> pins;
  std::set<SlotId> cached;
  const auto held = [&](SlotId slot) {
    return std::ranges::any_of(pins, [&](const auto& pin) { return pin.first.slot() == slot; });
  };
  const auto operations = *rc::gen::container<std::vector<std::tuple<int, uint32_t, uint32_t>>>(
      rc::gen::tuple(rc::gen::inRange(0, 5), rc::gen::inRange(0u, kSlots), rc::gen::inRange(0u, 4u)));
  for (const auto& [operation, number, kind_number] : operations) {
    const SlotId slot{number};
    const PinKind kind{static_cast<uint8_t>(kind_number)};
    if (operation == 0) {
      auto pin = pool.acquire();
      if (pin) {
        RC_ASSERT(!held(pin->slot()) && !cached.contains(pin->slot()));
        pins.emplace_back(std::move(*pin), PinKind::kOwner);
      }
    } else if (operation == 1 && (cached.contains(slot) || (held(slot) && kind != PinKind::kOwner))) {
      pins.emplace_back(pool.pin(slot, kind), kind);
    } else if (operation == 2 && !pins.empty()) {
      pins.erase(pins.begin() + static_cast<ptrdiff_t>(number % pins.size()));
    } else if (operation == 3 && (held(slot) || cached.contains(slot))) {
      pool.set_cached(slot, true);
      cached.insert(slot);
    } else if (operation == 4 && cached.erase(slot) > 0) {
      pool.set_cached(slot, false);
    }
    pool.check_conservation();
    uint32_t free = 0;
    for (uint32_t i = 0; i < kSlots; ++i) {
      free += !held(SlotId{i}) && !cached.contains(SlotId{i});
      RC_ASSERT(pool.is_held(SlotId{i}) == held(SlotId{i}));
      RC_ASSERT(pool.is_cached(SlotId{i}) == cached.contains(SlotId{i}));
      for (const PinKind each : {PinKind::kOwner, PinKind::kReader, PinKind::kWriter, PinKind::kTierIo}) {
        const auto count = std::ranges::count_if(
            pins, [&](const auto& pin) { return pin.first.slot() == SlotId{i} && pin.second == each; });
        RC_ASSERT(pool.count(SlotId{i}, each) == static_cast<uint32_t>(count));
      }
    }
    RC_ASSERT(pool.free_count() == free);
  }
}

}  // namespace
}  // namespace spillway
