#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/ids.h"
#include "kv/block.h"

namespace spillway {

inline constexpr size_t kPublicPrefixesMax = 64;

// What the operator marked public: tenants share the KV blocks of these beginnings of prompts, and of no others. As
// a part of one is public too, the tokens where text meets text need not agree. Immutable; any thread.
class PublicPrefixes {
 public:
  PublicPrefixes() = default;  // nothing is public
  // Their key is derived from `secret`: the same at every gateway that has it, whatever the prefixes are.
  // REQUIRES: at most kPublicPrefixesMax (CHECK).
  PublicPrefixes(std::vector<std::vector<TokenId>> prefixes, std::span<const std::byte> secret);

  size_t size() const { return prefixes_.size(); }
  // The longest beginning of `prompt` that is one of a public prefix too.
  PublicPrefix of(std::span<const TokenId> prompt) const;

 private:
  std::vector<std::vector<TokenId>> prefixes_;  // ascending
  TenantKey key_;
};

}  // namespace spillway
