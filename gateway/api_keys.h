#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv/block.h"

namespace spillway {

inline constexpr size_t kApiKeysMax = 64;
inline constexpr size_t kApiKeyBytesMin = 8, kApiKeyBytesMax = 256;  // of one

// The keys that clients may show, and the tenant that each stands for. Keeps their SHA-256 only, so that no dump or log
// of it gives a key away. Without any, nobody is asked. Immutable; any thread.
class ApiKeys {
 public:
  ApiKeys() = default;
  // A key's tenant is derived from `secret` and the key's hash: the same after a restart, another for another key.
  // REQUIRES: 1 to kApiKeysMax keys, none empty (CHECK).
  ApiKeys(std::span<const std::string> keys, std::span<const std::byte> secret);

  bool asked_for() const { return !entries_.empty(); }
  size_t count() const { return entries_.size(); }
  // The tenant of an Authorization header's "Bearer KEY"; nullptr: it has none of ours. Compares with all keys in time
  // that does not depend on how much of one is right.
  const TenantKey* find(std::string_view authorization) const;

 private:
  using Hash = std::array<unsigned char, 32>;
  struct Entry {
    Hash hash;
    TenantKey tenant;
  };
  static Hash hash_of(std::string_view key);

  std::vector<Entry> entries_;
};

}  // namespace spillway
