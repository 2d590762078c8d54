#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "kv/block.h"

// Identity of blocks: pure functions, any thread. The MACed message of a block is
//   "spillway.block.1" (16) | parent key (16) | model id (16) | token count u32 | token ids u32 each
// with integers little-endian. Every field but the last has a fixed size and the count fixes the last, so two different
// inputs never make the same message. Another encoding needs another tag.
namespace spillway {

// Key of one full block given its parent's key; the parent of a first block is BlockKey{}.
// REQUIRES tokens.size() == block_tokens of the model.
BlockKey block_key(const TenantKey& tenant, const ModelId& model, const BlockKey& parent,
                   std::span<const TokenId> tokens);

// Keys of all full blocks of `tokens`, in order; a partial last block has none. Those wholly inside `shared` are the
// same for all tenants, every other one is the tenant's own. REQUIRES shared.tokens <= tokens.size().
std::vector<BlockKey> block_keys(const TenantKey& tenant, const PublicPrefix& shared, const ModelId& model,
                                 uint32_t block_tokens, std::span<const TokenId> tokens);

// HKDF-SHA-256 (RFC 5869) of `secret` with salt "spillway.tenant.1" and the tenant's name as info; 32 bytes.
// REQUIRES: secret not empty.
TenantKey derive_tenant_key(std::span<const std::byte> secret, std::string_view tenant);

}  // namespace spillway
