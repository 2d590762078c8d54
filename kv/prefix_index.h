#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

#include "common/ids.h"
#include "kv/block.h"

namespace spillway {

// Sealed blocks by key, with the token ids they were computed from: a hit is verified, not believed. Knows recency
// (a touched prefix goes tail first) and the prefix tree: only leaves are evicted, so a prefix goes from its end. Loop
// thread; bounded by the slot count. n = size() in the costs below.
class PrefixIndex {
 public:
  explicit PrefixIndex(uint32_t blocks_max);
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;

  struct Entry {
    SlotId slot{};
    BlockKey key, parent;
    std::vector<TokenId> tokens;
    BlockEncoding encoding;
  };
  // Nothing when the key is absent, the tokens or the parent differ (a key collision is a miss), or the encoding
  // differs (another numerics class is a miss). O(block_tokens).
  std::optional<SlotId> find(const BlockKey& key, const BlockKey& parent, std::span<const TokenId> tokens,
                             const BlockEncoding& encoding) const;
  bool contains(const BlockKey& key) const { return nodes_.contains(key); }
  // The entry becomes the most recent. O(log n). REQUIRES: !contains(entry.key), size() < blocks_max, and a parent that
  // is BlockKey{} or contained (an entry without its prefix could never be reached).
  void insert(Entry entry);
  // O(log n). REQUIRES: contained, no indexed child.
  void erase(const BlockKey& key);
  // Erases an entry and all that were computed over it; their slots, children before parents. Nothing when absent.
  std::vector<SlotId> erase_subtree(const BlockKey& key);
  // Marks a chain of keys as just used; the first of the chain becomes the most recent. O(chain log n). REQUIRES: all
  // contained.
  void touch(std::span<const BlockKey> chain);
  // Least recent leaf for which `may_evict(slot)` holds; nothing if there is none. Costs one call per leaf refused: a
  // sequence pins its whole prefix and so at most one leaf, hence at most one per open sequence and pinned block in
  // flight, however large the cache.
  template <class MayEvict>
  std::optional<BlockKey> oldest(MayEvict&& may_evict) const {
    for (const auto& [used, node] : leaves_) {
      if (may_evict(node->entry.slot)) return node->entry.key;
    }
    return std::nullopt;
  }
  // Entries that eviction could reach while `is_held(slot)` stays as it is: neither held nor above a held one. O(n).
  template <class IsHeld>
  uint32_t evictable(IsHeld&& is_held) const {
    ++visit_;
    uint32_t blocked = 0;
    for (const auto& [key, node] : nodes_) {
      if (!is_held(node.entry.slot)) continue;
      // Stops at what was counted before, so each entry is counted once.
      for (const Node* above = &node; above != nullptr && above->visit != visit_; above = above->parent) {
        above->visit = visit_;
        ++blocked;
      }
    }
    return size() - blocked;
  }
  const Entry& entry(const BlockKey& key) const { return node(key).entry; }  // REQUIRES: contained
  uint32_t size() const { return static_cast<uint32_t>(nodes_.size()); }
  // Calls visit(entry) for all, in no particular order.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (const auto& [key, node] : nodes_) visit(node.entry);
  }
  void check_conservation() const;  // tree, recency and bound agree (CHECK); O(n log n)

 private:
  struct Node {  // stays at its address while indexed
    Entry entry;
    uint64_t used = 0;  // recency; unique
    Node* parent = nullptr;
    Node* first_child = nullptr;  // siblings are a doubly linked list
    Node* previous = nullptr;
    Node* next = nullptr;
    mutable uint64_t visit = 0;  // mark of the latest walk of evictable()
  };
  Node& node(const BlockKey& key);
  const Node& node(const BlockKey& key) const;
  void link(Node& child, Node& parent);
  void unlink(Node& child);
  const uint32_t blocks_max_;
  std::unordered_map<BlockKey, Node> nodes_;
  std::map<uint64_t, Node*> leaves_;  // by recency, least recent first
  uint64_t clock_ = 0;
  mutable uint64_t visit_ = 0;
};

}  // namespace spillway
