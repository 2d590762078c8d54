#include "kv/kv_cache.h"

#include <utility>

#include "common/check.h"

namespace spillway {

KvCache::KvCache(const KvCacheConfig& config) : config_(config), pool_(config.slot_count), index_(config.slot_count) {
  CHECK(config.layout.block_tokens > 0);
}

std::vector<SlotPin> KvCache::match(std::span<const BlockKey> keys, std::span<const TokenId> tokens) {
  const size_t block_tokens = config_.layout.block_tokens;
  CHECK(tokens.size() / block_tokens >= keys.size());
  std::vector<SlotPin> pins;
  BlockKey parent;
  for (const BlockKey& key : keys) {
    const auto slot =
        index_.find(key, parent, tokens.subspan(pins.size() * block_tokens, block_tokens), config_.encoding);
    if (!slot) break;
    pins.push_back(pool_.pin(*slot, PinKind::kOwner));
    parent = key;
  }
  index_.touch(keys.first(pins.size()));
  totals_.hits += pins.size();
  totals_.misses += keys.size() - pins.size();
  return pins;
}

bool KvCache::reserve(uint32_t count, std::vector<SlotPin>& pins) {
  if (pool_.free_count() < count && available() < count) return false;
  const auto unheld = [this](SlotId slot) { return !pool_.is_held(slot); };
  while (pool_.free_count() < count) {
    const auto oldest = index_.oldest(unheld);
    CHECK(oldest.has_value());  // available() promised it
    const BlockKey key = *oldest;
    const SlotId slot = index_.entry(key).slot;
    index_.erase(key);
    pool_.set_cached(slot, false);
    ++totals_.evictions;
  }
  for (uint32_t i = 0; i < count; ++i) {
    auto pin = pool_.acquire();
    CHECK(pin.has_value());
    pins.push_back(std::move(*pin));
  }
  return true;
}

uint32_t KvCache::available() const {
  return pool_.free_count() + index_.evictable([this](SlotId slot) { return pool_.is_held(slot); });
}

void KvCache::publish(SlotId slot, const BlockKey& key, const BlockKey& parent, std::span<const TokenId> tokens,
                      const BlockEncoding& encoding) {
  CHECK(pool_.is_held(slot) && !pool_.is_cached(slot));
  CHECK(tokens.size() == config_.layout.block_tokens);
  if (encoding != config_.encoding || encoding.numerics == kNumericsMixed) return;
  if (index_.contains(key) || (parent != BlockKey{} && !index_.contains(parent))) return;
  index_.insert({slot, key, parent, {tokens.begin(), tokens.end()}, encoding});
  pool_.set_cached(slot, true);
}

void KvCache::forget(const BlockKey& key) {
  for (const SlotId slot : index_.erase_subtree(key)) pool_.set_cached(slot, false);
}

KvCacheCounts KvCache::counts() const {
  KvCacheCounts counts = totals_;
  counts.slots = pool_.slot_count();
  counts.free = pool_.free_count();
  counts.held = pool_.held_count();
  counts.cached = index_.size();
  return counts;
}

void KvCache::check_conservation() const {
  pool_.check_conservation();
  index_.check_conservation();
  // As many cached slots as entries, and each entry's slot is cached by no other: the two sets are one.
  CHECK(pool_.cached_count() == index_.size());
  std::vector<bool> seen(pool_.slot_count());
  index_.for_each([&](const PrefixIndex::Entry& entry) {
    CHECK(pool_.is_cached(entry.slot));
    CHECK(!seen[static_cast<uint32_t>(entry.slot)]);
    seen[static_cast<uint32_t>(entry.slot)] = true;
  });
}

}  // namespace spillway
