#include "gateway/public_prefixes.h"

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "common/check.h"
#include "kv/block_key.h"

namespace spillway {
namespace {

// No tenant has it: those are "default" and "api-key:" with a hash.
constexpr std::string_view kPublicName = "public-prefix";

uint32_t common_tokens(std::span<const TokenId> a, std::span<const TokenId> b) {
  return static_cast<uint32_t>(std::ranges::mismatch(a, b).in1 - a.begin());
}

}  // namespace

PublicPrefixes::PublicPrefixes(std::vector<std::vector<TokenId>> prefixes, std::span<const std::byte> secret)
    : prefixes_(std::move(prefixes)), key_(derive_tenant_key(secret, kPublicName)) {
  CHECK(prefixes_.size() <= kPublicPrefixesMax);
  std::ranges::sort(prefixes_);
}

PublicPrefix PublicPrefixes::of(std::span<const TokenId> prompt) const {
  // In order, those that share most with the prompt are its neighbours.
  const auto after = std::ranges::lower_bound(
      prefixes_, prompt, [](const auto& a, const auto& b) { return std::ranges::lexicographical_compare(a, b); });
  uint32_t tokens = 0;
  if (after != prefixes_.end()) tokens = common_tokens(prompt, *after);
  if (after != prefixes_.begin()) tokens = std::max(tokens, common_tokens(prompt, *std::prev(after)));
  return tokens > 0 ? PublicPrefix{key_, tokens} : PublicPrefix{};
}

}  // namespace spillway
