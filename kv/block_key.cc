#include "kv/block_key.h"

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/kdf.h>
#include <openssl/params.h>

#include <algorithm>
#include <memory>
#include <string_view>

#include "common/check.h"

namespace spillway {
namespace {

constexpr std::string_view kBlockKeyTag = "spillway.block.1";  // 16 bytes
constexpr std::string_view kTenantKeySalt = "spillway.tenant.1";

void append(std::vector<unsigned char>& message, std::span<const std::byte> bytes) {
  for (const std::byte byte : bytes) message.push_back(std::to_integer<unsigned char>(byte));
}

void append_u32(std::vector<unsigned char>& message, uint32_t value) {
  for (int shift = 0; shift < 32; shift += 8) message.push_back(static_cast<unsigned char>(value >> shift));
}

}  // namespace

BlockKey block_key(const TenantKey& tenant, const ModelId& model, const BlockKey& parent,
                   std::span<const TokenId> tokens) {
  std::vector<unsigned char> message;
  message.reserve(kBlockKeyTag.size() + parent.bytes.size() + model.bytes.size() + 4 + 4 * tokens.size());
  append(message, std::as_bytes(std::span(kBlockKeyTag)));
  append(message, parent.bytes);
  append(message, model.bytes);
  append_u32(message, checked_cast<uint32_t>(tokens.size()));
  for (const TokenId token : tokens) append_u32(message, token);

  std::array<unsigned char, EVP_MAX_MD_SIZE> mac{};
  unsigned int mac_bytes = 0;
  CHECK(HMAC(EVP_sha256(), tenant.bytes.data(), checked_cast<int>(tenant.bytes.size()), message.data(), message.size(),
             mac.data(), &mac_bytes) != nullptr);
  BlockKey key;
  CHECK(mac_bytes >= key.bytes.size());
  std::memcpy(key.bytes.data(), mac.data(), key.bytes.size());
  return key;
}

std::vector<BlockKey> block_keys(const TenantKey& tenant, const PublicPrefix& shared, const ModelId& model,
                                 uint32_t block_tokens, std::span<const TokenId> tokens) {
  CHECK(block_tokens > 0 && shared.tokens <= tokens.size());
  const size_t public_blocks = shared.tokens / block_tokens;
  std::vector<BlockKey> keys;
  keys.reserve(tokens.size() / block_tokens);
  BlockKey parent;
  for (; tokens.size() >= block_tokens; tokens = tokens.subspan(block_tokens)) {
    const TenantKey& owner = keys.size() < public_blocks ? shared.key : tenant;
    parent = block_key(owner, model, parent, tokens.first(block_tokens));
    keys.push_back(parent);
  }
  return keys;
}

TenantKey derive_tenant_key(std::span<const std::byte> secret, std::string_view tenant) {
  CHECK(!secret.empty());
  const std::unique_ptr<EVP_KDF, decltype(&EVP_KDF_free)> kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr), EVP_KDF_free);
  CHECK(kdf != nullptr);
  const std::unique_ptr<EVP_KDF_CTX, decltype(&EVP_KDF_CTX_free)> context(EVP_KDF_CTX_new(kdf.get()), EVP_KDF_CTX_free);
  CHECK(context != nullptr);
  // OSSL_PARAM takes pointers to non-const; HKDF only reads them.
  const auto octets = [](const char* name, const void* data, size_t size) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<void*>(data), size);
  };
  char digest[] = "SHA256";
  const OSSL_PARAM parameters[] = {
      OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
      octets(OSSL_KDF_PARAM_KEY, secret.data(), secret.size()),
      octets(OSSL_KDF_PARAM_SALT, kTenantKeySalt.data(), kTenantKeySalt.size()),
      octets(OSSL_KDF_PARAM_INFO, tenant.data(), tenant.size()),
      OSSL_PARAM_construct_end(),
  };
  TenantKey key;
  CHECK(EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(key.bytes.data()), key.bytes.size(),
                       parameters) == 1);
  return key;
}

}  // namespace spillway
