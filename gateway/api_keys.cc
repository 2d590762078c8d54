#include "gateway/api_keys.h"

#include <fmt/format.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>

#include <algorithm>

#include "common/check.h"
#include "kv/block_key.h"

namespace spillway {
namespace {

constexpr std::string_view kScheme = "bearer ";  // in any case (RFC 9110, section 11.1)

bool has_scheme(std::string_view authorization) {
  const std::string_view scheme = authorization.substr(0, kScheme.size());
  return std::equal(scheme.begin(), scheme.end(), kScheme.begin(), kScheme.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

}  // namespace

ApiKeys::ApiKeys(std::span<const std::string> keys, std::span<const std::byte> secret) {
  CHECK(!keys.empty() && keys.size() <= kApiKeysMax);
  for (const std::string& key : keys) {
    CHECK(!key.empty());
    const Hash hash = hash_of(key);
    entries_.push_back({hash, derive_tenant_key(secret, fmt::format("api-key:{:02x}", fmt::join(hash, "")))});
  }
}

ApiKeys::Hash ApiKeys::hash_of(std::string_view key) {
  Hash hash{};
  CHECK(EVP_Digest(key.data(), key.size(), hash.data(), nullptr, EVP_sha256(), nullptr) == 1);
  return hash;
}

const TenantKey* ApiKeys::find(std::string_view authorization) const {
  if (!has_scheme(authorization)) return nullptr;
  authorization.remove_prefix(kScheme.size());
  authorization.remove_prefix(std::min(authorization.find_first_not_of(' '), authorization.size()));
  const Hash shown = hash_of(authorization);
  const TenantKey* found = nullptr;
  for (const Entry& entry : entries_)
    if (CRYPTO_memcmp(entry.hash.data(), shown.data(), shown.size()) == 0) found = &entry.tenant;
  return found;
}

}  // namespace spillway
