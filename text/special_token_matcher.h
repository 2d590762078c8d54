#pragma once

#include <boost/unordered/unordered_flat_map.hpp>
#include <cstdint>
#include <optional>
#include <string_view>

#include "common/ids.h"

namespace spillway {

// Finds special tokens in text: the leftmost, and of those beginning there the longest. A trie, so that a step costs at
// most the longest token's length however many tokens there are. Immutable once filled: any thread may find().
class SpecialTokenMatcher {
 public:
  // Longer ones make no sense in a vocabulary and would let it slow down find(). REQUIRES of add(): 1 to this many
  // bytes.
  static constexpr size_t kTokenBytesMax = 256;
  void add(std::string_view text, TokenId token);

  struct Found {
    size_t begin, length;  // bytes
    TokenId token;
  };
  std::optional<Found> find(std::string_view text, size_t from) const;

 private:
  using Node = uint32_t;  // the root is 0
  std::optional<Found> longest_at(std::string_view text, size_t begin) const;

  Node node_count_ = 1;
  boost::unordered_flat_map<uint64_t, Node> children_;  // by node * 256 + byte
  boost::unordered_flat_map<Node, TokenId> tokens_;     // that end at a node
  bool begins_token_[256] = {};
};

}  // namespace spillway
