#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <vector>

#include "common/ids.h"

namespace spillway {

// Byte-pair encoding (Sennrich et al. 2016) of one word: while a neighbouring pair has a rule, the pair of the lowest
// rank merges, leftmost first. A queue of candidates makes it O(n log n) in the word's length, so that one word of
// megabytes is no attack. Immutable once filled: any thread may merge(), each with its own Workspace.
class BpeMerger {
 public:
  struct Workspace;
  struct Rule {
    uint32_t rank;  // below UINT32_MAX; rules may share one
    TokenId merged;
  };
  // A pair that has a rule keeps it.
  void add_rule(TokenId left, TokenId right, Rule rule) { rules_.emplace(uint64_t{left} << 32 | right, rule); }
  // Appends to `tokens` what `symbols` (the word's smallest tokens, in order) merge to.
  void merge(const std::vector<TokenId>& symbols, Workspace& workspace, std::vector<TokenId>& tokens) const;

 private:
  void offer(Workspace& workspace, uint32_t index) const;
  boost::unordered_flat_map<uint64_t, Rule> rules_;  // by left << 32 | right
};

// Memory that one caller reuses from word to word.
struct BpeMerger::Workspace {
  struct Symbol {
    TokenId token;
    uint32_t previous, next;  // neighbours still there; kNone at the ends
    uint32_t rank;   // of the rule for this symbol and its next; kNone: there is no rule, or the symbol is gone
    TokenId merged;  // what that rule makes
  };
  static constexpr uint32_t kNone = UINT32_MAX;
  std::vector<Symbol> symbols;
  std::vector<uint64_t> candidates;  // min-heap of rank << 32 | index of the left symbol; may hold outdated ones
};

}  // namespace spillway
