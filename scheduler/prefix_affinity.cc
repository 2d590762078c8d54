#include "scheduler/prefix_affinity.h"

#include <algorithm>

namespace spillway {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood: "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014).
uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

}  // namespace

std::vector<uint64_t> prefix_chain(uint64_t seed, std::span<const TokenId> prompt, uint32_t span_tokens,
                                   size_t spans_max) {
  std::vector<uint64_t> chain;
  const size_t spans = std::min(prompt.size() / span_tokens, spans_max);
  uint64_t hash = seed;
  for (size_t span = 0; span < spans; ++span) {
    for (const TokenId token : prompt.subspan(span * span_tokens, span_tokens))
      hash = mix(hash + 0x9e3779b97f4a7c15 + token);
    chain.push_back(hash);
  }
  return chain;
}

void PrefixAffinity::placed(std::span<const uint64_t> chain, PeerId prefill, PeerId decode) {
  // The shortest last, so that a prefix is forgotten from its end.
  for (auto hash = chain.rbegin(); hash != chain.rend(); ++hash) {
    const auto [entry, is_new] = entries_.try_emplace(*hash);
    if (is_new) {
      entry->second.place = order_.insert(order_.begin(), *hash);
    } else {
      order_.splice(order_.begin(), order_, entry->second.place);
    }
    entry->second.prefill = prefill;
    entry->second.decode = decode;
  }
  while (entries_.size() > entries_max_) {
    entries_.erase(order_.back());
    order_.pop_back();
  }
}

void PrefixAffinity::forget(PeerId node) {
  for (auto entry = entries_.begin(); entry != entries_.end();) {
    PeerId& prefill = entry->second.prefill;
    PeerId& decode = entry->second.decode;
    if (prefill == node) prefill = PeerId{};
    if (decode == node) decode = PeerId{};
    if (prefill == PeerId{} && decode == PeerId{}) {
      order_.erase(entry->second.place);
      entry = entries_.erase(entry);
    } else {
      ++entry;
    }
  }
}

uint32_t PrefixAffinity::spans_at(std::span<const uint64_t> chain, PeerId node) const {
  uint32_t longest = 0;
  for (uint32_t span = 0; span < chain.size(); ++span) {
    const auto entry = entries_.find(chain[span]);
    if (entry == entries_.end()) break;
    if (entry->second.prefill == node || entry->second.decode == node) longest = span + 1;
  }
  return longest;
}

}  // namespace spillway
