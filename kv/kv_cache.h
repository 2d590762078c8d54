#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "common/ids.h"
#include "kv/block.h"
#include "kv/prefix_index.h"
#include "kv/slot_pool.h"

namespace spillway {

struct KvCacheConfig {
  KvLayout layout;
  ModelId model;
  BlockEncoding encoding;  // of blocks this process computes; the only one that hits
  uint32_t slot_count = 0;
};

struct KvCacheCounts {
  uint32_t slots = 0, free = 0, held = 0, cached = 0;  // cached: in the index, held or not
  uint64_t hits = 0, misses = 0, evictions = 0;        // blocks, since start
};

// Every fact about KV blocks of one process: slots, holds, keys, prefix index, eviction. Owns no block memory. Loop
// thread. One slot has one owner sequence while open; sealed blocks may have many. Must outlive its pins.
class KvCache {
 public:
  explicit KvCache(const KvCacheConfig& config);

  // The longest chain of cached blocks for the first keys.size() full blocks of `tokens`, pinned as kOwner, most
  // recently used from now on. REQUIRES tokens.size() >= keys.size() * block_tokens.
  std::vector<SlotPin> match(std::span<const BlockKey> keys, std::span<const TokenId> tokens);
  // Appends `count` empty slots as kOwner to `pins`, all or none; evicts unheld cached blocks, oldest and tail first.
  // False: no space, nothing was evicted and `pins` is as it was.
  [[nodiscard]] bool reserve(uint32_t count, std::vector<SlotPin>& pins);
  // Slots that reserve() could give now: free ones and cached ones that are neither held nor the prefix of a held one.
  // O(cached blocks).
  uint32_t available() const;
  // Shares a full block from now on, until it is evicted or forgotten. Not shared, and the slot stays private to its
  // holder, are: a key that is already cached (it keeps its present slot), an encoding other than this cache's own or
  // of class kNumericsMixed, and a block whose parent is not cached (nothing could reach it). REQUIRES: the slot is
  // held and not cached, tokens.size() == block_tokens.
  void publish(SlotId slot, const BlockKey& key, const BlockKey& parent, std::span<const TokenId> tokens,
               const BlockEncoding& encoding);
  // Forgets a doubtful block, and those computed over it, at once; each slot is free when its last hold ends.
  void forget(const BlockKey& key);
  // A further hold. REQUIRES: the slot is held or cached; for kOwner: cached.
  SlotPin pin(SlotId slot, PinKind kind) { return pool_.pin(slot, kind); }

  const KvCacheConfig& config() const { return config_; }
  const SlotPool& pool() const { return pool_; }
  KvCacheCounts counts() const;
  void check_conservation() const;  // pool and index agree (CHECK)

 private:
  KvCacheConfig config_;
  SlotPool pool_;
  PrefixIndex index_;
  KvCacheCounts totals_;  // hits, misses, evictions
};

}  // namespace spillway
