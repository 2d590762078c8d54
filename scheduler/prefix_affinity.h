#pragma once

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <span>
#include <vector>

#include "common/ids.h"

namespace spillway {

// Hashes of the leading spans of a prompt, chain[i] over its first (i + 1) * `span_tokens` tokens, at most `spans_max`;
// `seed` keeps tenants apart. No key: two prompts may share a hash, which costs a bad guess.
std::vector<uint64_t> prefix_chain(uint64_t seed, std::span<const TokenId> prompt, uint32_t span_tokens,
                                   size_t spans_max);

// Where each prefix was computed (P) and kept (D) last, as far as remembered: a hint about what those nodes have
// cached, never more. At most `entries_max` prefixes, the one that was placed longest ago is forgotten first.
class PrefixAffinity {
 public:
  explicit PrefixAffinity(size_t entries_max) : entries_max_(entries_max) {}

  void placed(std::span<const uint64_t> chain, PeerId prefill, PeerId decode);
  void forget(PeerId node);  // it is gone, and its cache with it
  // Leading spans of `chain` that this node probably holds.
  uint32_t spans_at(std::span<const uint64_t> chain, PeerId node) const;
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    PeerId prefill{}, decode{};
    std::list<uint64_t>::iterator place;  // in order_
  };
  size_t entries_max_;
  std::map<uint64_t, Entry> entries_;
  std::list<uint64_t> order_;  // the one placed last in front
};

}  // namespace spillway
