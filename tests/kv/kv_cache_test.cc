#include "kv/kv_cache.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "kv/block_key.h"

namespace spillway {
namespace {

constexpr uint32_t kBlockTokens = 16;
const BlockEncoding kOwn{.numerics = NumericsClass{2}};

KvCacheConfig config(uint32_t slots) {
  return {.layout = {.layer_count = 1, .kv_heads = 1, .head_dim = 2, .block_tokens = kBlockTokens},
          .model = {},
          .encoding = kOwn,
          .slot_count = slots};
}

using Path = std::vector<uint32_t>;  // block contents from position 0, one number a block

std::vector<TokenId> tokens_of(const Path& path) {
  std::vector<TokenId> tokens;
  for (const uint32_t number : path) tokens.insert(tokens.end(), kBlockTokens, number);
  return tokens;
}

std::vector<BlockKey> keys_of(const Path& path) { return block_keys({}, {}, {}, kBlockTokens, tokens_of(path)); }

void publish(KvCache& cache, SlotId slot, const Path& path, const BlockEncoding& encoding = kOwn) {
  const auto keys = keys_of(path);
  const BlockKey parent = keys.size() > 1 ? keys[keys.size() - 2] : BlockKey{};
  cache.publish(slot, keys.back(), parent, tokens_of({path.back()}), encoding);
}

std::vector<SlotPin> match(KvCache& cache, const Path& path) { return cache.match(keys_of(path), tokens_of(path)); }

// Slots of `path`, computed and shared, no longer held.
std::vector<SlotId> fill(KvCache& cache, const Path& path) {
  std::vector<SlotPin> pins;
  EXPECT_TRUE(cache.reserve(static_cast<uint32_t>(path.size()), pins));
  std::vector<SlotId> slots;
  for (size_t i = 0; i < path.size(); ++i) {
    slots.push_back(pins[i].slot());
    publish(cache, pins[i].slot(), {path.begin(), path.begin() + static_cast<ptrdiff_t>(i) + 1});
  }
  return slots;
}

TEST(KvCache, MatchesTheLongestCachedPrefix) {
  KvCache cache(config(8));
  const auto slots = fill(cache, {1, 2, 3});
  const auto pins = match(cache, {1, 2, 9, 3});
  ASSERT_EQ(pins.size(), 2u);
  EXPECT_EQ(pins[0].slot(), slots[0]);
  EXPECT_EQ(pins[1].slot(), slots[1]);
  EXPECT_EQ(cache.pool().count(slots[1], PinKind::kOwner), 1u);
  EXPECT_TRUE(match(cache, {2, 1}).empty());  // the same block over another prefix
  EXPECT_EQ(cache.counts().hits, 2u);
  EXPECT_EQ(cache.counts().misses, 4u);
}

TEST(KvCache, KeyCollisionIsNeverServed) {
  KvCache cache(config(4));
  std::vector<SlotPin> pins;
  ASSERT_TRUE(cache.reserve(2, pins));
  const auto keys = keys_of({1});
  cache.publish(pins[0].slot(), keys[0], {}, tokens_of({1}), kOwn);
  // Other tokens come out at the same key: a miss, and publishing them keeps the block that was there first.
  EXPECT_TRUE(cache.match(keys, tokens_of({7})).empty());
  cache.publish(pins[1].slot(), keys[0], {}, tokens_of({7}), kOwn);
  EXPECT_TRUE(cache.match(keys, tokens_of({7})).empty());
  const auto hit = cache.match(keys, tokens_of({1}));
  ASSERT_EQ(hit.size(), 1u);
  EXPECT_EQ(hit[0].slot(), pins[0].slot());
}

TEST(KvCache, OtherOrMixedEncodingIsNotShared) {
  KvCacheConfig mixed = config(2);
  mixed.encoding.numerics = kNumericsMixed;
  for (const KvCacheConfig& each : {config(2), mixed}) {
    KvCache cache(each);
    std::vector<SlotPin> pins;
    ASSERT_TRUE(cache.reserve(1, pins));
    publish(cache, pins[0].slot(), {1}, {.numerics = NumericsClass{1}});
    publish(cache, pins[0].slot(), {1}, {.numerics = kNumericsMixed});
    EXPECT_TRUE(match(cache, {1}).empty());
    EXPECT_EQ(cache.counts().cached, 0u);
  }
}

TEST(KvCache, FirstPublisherKeepsTheKey) {
  KvCache cache(config(2));
  std::vector<SlotPin> pins;
  ASSERT_TRUE(cache.reserve(2, pins));
  publish(cache, pins[0].slot(), {1});
  publish(cache, pins[1].slot(), {1});
  EXPECT_EQ(match(cache, {1})[0].slot(), pins[0].slot());
  pins.clear();
  EXPECT_EQ(cache.counts().free, 1u);  // the second stayed private and is free at once
  EXPECT_EQ(cache.counts().cached, 1u);
}

TEST(KvCache, BlockWithoutItsPrefixIsNotShared) {
  KvCache cache(config(2));
  std::vector<SlotPin> pins;
  ASSERT_TRUE(cache.reserve(1, pins));
  publish(cache, pins[0].slot(), {1, 2});
  EXPECT_EQ(cache.counts().cached, 0u);
}

TEST(KvCache, ReserveIsAllOrNothing) {
  KvCache cache(config(4));
  const auto slots = fill(cache, {1, 2});
  const SlotPin reader = cache.pin(slots[0], PinKind::kReader);
  std::vector<SlotPin> pins;
  EXPECT_EQ(cache.available(), 3u);
  EXPECT_FALSE(cache.reserve(4, pins));
  EXPECT_TRUE(pins.empty());
  EXPECT_EQ(cache.counts().evictions, 0u);
  EXPECT_EQ(match(cache, {1, 2}).size(), 2u);  // the failed attempt cost nothing
  EXPECT_TRUE(cache.reserve(3, pins));
  EXPECT_EQ(pins.size(), 3u);
  EXPECT_EQ(cache.counts().evictions, 1u);
}

TEST(KvCache, PrefixOfAHeldBlockIsNotAvailable) {
  KvCache cache(config(3));
  const auto slots = fill(cache, {1, 2, 3});
  const SlotPin reader = cache.pin(slots[1], PinKind::kReader);  // slot 0 is unheld, but block 1 stands on it
  EXPECT_EQ(cache.available(), 1u);
  std::vector<SlotPin> pins;
  EXPECT_FALSE(cache.reserve(2, pins));
  EXPECT_TRUE(cache.reserve(1, pins));
  EXPECT_EQ(pins[0].slot(), slots[2]);
}

TEST(KvCache, ForgetDropsTheBlockAndAllComputedOverIt) {
  KvCache cache(config(4));
  const auto slots = fill(cache, {1, 2, 3});
  SlotPin reader = cache.pin(slots[2], PinKind::kReader);
  cache.forget(keys_of({1, 2})[1]);
  EXPECT_EQ(match(cache, {1, 2, 3}).size(), 1u);
  EXPECT_EQ(cache.counts().free, 2u);  // the held one is not free yet
  reader.release();
  EXPECT_EQ(cache.counts().free, 3u);
  cache.forget(keys_of({1, 2})[1]);  // unknown: nothing happens
  cache.check_conservation();
}

TEST(KvCacheDeathTest, PublishingAFreeSlotIsAProgrammerError) {
  KvCache cache(config(1));
  EXPECT_DEATH(publish(cache, SlotId{0}, {1}), "CHECK failed");
}

// The plainest cache that could be right: a list of entries, scanned for everything.
struct ModelCache {
  struct Cached {
    SlotId slot{};
    uint64_t used = 0;
  };
  std::map<Path, Cached> entries;
  std::multiset<SlotId> holds;
  uint64_t clock = 0;

  static Path prefix(const Path& path, size_t size) {
    return {path.begin(), path.begin() + static_cast<ptrdiff_t>(size)};
  }
  bool evictable(const Path& path) const {
    for (const auto& [other, cached] : entries) {
      const bool covers = other.size() >= path.size() && prefix(other, path.size()) == path;
      if (covers && holds.contains(cached.slot)) return false;
    }
    return true;
  }
  uint32_t available(uint32_t slots) const {
    std::set<SlotId> taken(holds.begin(), holds.end());
    for (const auto& [path, cached] : entries) taken.insert(cached.slot);
    const auto evictables = std::ranges::count_if(entries, [&](const auto& entry) { return evictable(entry.first); });
    return slots - static_cast<uint32_t>(taken.size()) + static_cast<uint32_t>(evictables);
  }
  void evict() {
    const Path* least = nullptr;
    for (const auto& [path, cached] : entries) {
      const bool leaf = std::ranges::none_of(entries, [&](const auto& other) {
        return other.first.size() > path.size() && prefix(other.first, path.size()) == path;
      });
      if (leaf && !holds.contains(cached.slot) && (least == nullptr || cached.used < entries[*least].used))
        least = &path;
    }
    const Path gone = *least;
    entries.erase(gone);
  }
  size_t match(const Path& path) {
    size_t length = 0;
    while (length < path.size() && entries.contains(prefix(path, length + 1))) ++length;
    for (size_t i = length; i > 0; --i) entries[prefix(path, i)].used = ++clock;
    return length;
  }
};

struct Holder {  // as a sequence would: matched, then reserved, then published one by one
  Path path;
  size_t sealed = 0;
  std::vector<SlotPin> pins;
};

class Against {
 public:
  explicit Against(uint32_t slots) : slots_(slots), cache_(config(slots)) {}

  void open(const Path& path) {
    Holder holder{path, model_.match(path), match(cache_, path)};
    RC_ASSERT(holder.pins.size() == holder.sealed);
    for (size_t i = 0; i < holder.sealed; ++i) {
      RC_ASSERT(holder.pins[i].slot() == model_.entries[ModelCache::prefix(path, i + 1)].slot);
      model_.holds.insert(holder.pins[i].slot());
    }
    const auto lacking = static_cast<uint32_t>(path.size() - holder.sealed);
    const bool fits = model_.available(slots_) >= lacking;
    const uint64_t evictions = cache_.counts().evictions;
    RC_ASSERT(cache_.reserve(lacking, holder.pins) == fits);
    for (uint64_t i = evictions; i < cache_.counts().evictions; ++i) model_.evict();
    for (size_t i = holder.sealed; i < holder.pins.size(); ++i) {
      RC_ASSERT(!model_.holds.contains(holder.pins[i].slot()));
      for (const auto& [other, cached] : model_.entries) RC_ASSERT(cached.slot != holder.pins[i].slot());
      model_.holds.insert(holder.pins[i].slot());
    }
    RC_ASSERT(holder.pins.size() == (fits ? path.size() : holder.sealed));
    holders_.push_back(std::move(holder));
    if (!fits) close(holders_.size() - 1);
  }
  void publish_next(size_t index) {
    if (holders_.empty()) return;
    Holder& holder = holders_[index % holders_.size()];
    if (holder.sealed == holder.path.size()) return;
    const Path path = ModelCache::prefix(holder.path, ++holder.sealed);
    const SlotId slot = holder.pins[holder.sealed - 1].slot();
    publish(cache_, slot, path);
    const bool reachable = path.size() == 1 || model_.entries.contains(ModelCache::prefix(path, path.size() - 1));
    if (reachable && !model_.entries.contains(path)) model_.entries[path] = {slot, ++model_.clock};
  }
  void close(size_t index) {
    if (holders_.empty()) return;
    const auto holder = holders_.begin() + static_cast<ptrdiff_t>(index % holders_.size());
    for (const SlotPin& pin : holder->pins) model_.holds.erase(model_.holds.find(pin.slot()));
    holders_.erase(holder);
  }
  void read(size_t index) {
    if (holders_.empty() || holders_[index % holders_.size()].pins.empty()) return;
    const auto& pins = holders_[index % holders_.size()].pins;
    readers_.push_back(cache_.pin(pins[index % pins.size()].slot(), PinKind::kReader));
    model_.holds.insert(readers_.back().slot());
  }
  void end_read() {
    if (readers_.empty()) return;
    model_.holds.erase(model_.holds.find(readers_.back().slot()));
    readers_.pop_back();
  }
  void forget(const Path& path) {
    cache_.forget(keys_of(path).back());
    std::erase_if(model_.entries, [&](const auto& entry) {
      return entry.first.size() >= path.size() && ModelCache::prefix(entry.first, path.size()) == path;
    });
  }
  void compare() const {
    cache_.check_conservation();
    const std::set<SlotId> held(model_.holds.begin(), model_.holds.end());
    std::set<SlotId> taken = held;
    for (const auto& [path, cached] : model_.entries) taken.insert(cached.slot);
    const KvCacheCounts counts = cache_.counts();
    RC_ASSERT(counts.slots == slots_);
    RC_ASSERT(counts.held == held.size());
    RC_ASSERT(counts.cached == model_.entries.size());
    RC_ASSERT(counts.free == slots_ - taken.size());
    RC_ASSERT(cache_.available() == model_.available(slots_));
  }

 private:
  const uint32_t slots_;
  KvCache cache_;
  ModelCache model_;
  std::vector<Holder> holders_;
  std::vector<SlotPin> readers_;
};

RC_GTEST_PROP(KvCache, AgreesWithThePlainModelOverAnyOperations, ()) {
  const auto slots = *rc::gen::resize(rc::kNominalSize, rc::gen::inRange(1u, 9u));  // inRange shrinks with the size
  const auto path = rc::gen::resize(5, rc::gen::nonEmpty(rc::gen::container<Path>(rc::gen::element(0u, 1u))));
  const auto operations =
      *rc::gen::scale(2.0, rc::gen::container<std::vector<std::tuple<int, size_t, Path>>>(rc::gen::tuple(
                               rc::gen::weightedElement<int>({{4, 0}, {8, 1}, {3, 2}, {1, 3}, {1, 4}, {1, 5}}),
                               rc::gen::inRange<size_t>(0, 100), path)));
  Against both(slots);
  for (const auto& [operation, index, blocks] : operations) {
    if (operation == 0) both.open(blocks);
    if (operation == 1) both.publish_next(index);
    if (operation == 2) both.close(index);
    if (operation == 3) both.read(index);
    if (operation == 4) both.end_read();
    if (operation == 5) both.forget(blocks);
    both.compare();
  }
}

}  // namespace
}  // namespace spillway
