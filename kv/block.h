#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>

// The noun of the system, as values: no memory of its own, no I/O, no thread.
namespace spillway {

enum class SlotId : uint32_t {};  // a place for one block in one arena

inline constexpr size_t kPageBytes = 4096;

// HMAC-SHA-256(tenant or public key, parent key | token ids | ModelId), first 128 bits. The parent of a first block is
// all zero.
struct BlockKey {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const BlockKey&) const = default;
};

// What must agree before two processes may exchange blocks: weights digest, architecture, RoPE settings, block_tokens.
struct ModelId {
  std::array<std::byte, 16> bytes{};
  auto operator<=>(const ModelId&) const = default;
  std::string hex() const;
};

// Derived from the persisted secret with HKDF per tenant; travels with the request so every node can key its blocks.
struct TenantKey {
  std::array<std::byte, 32> bytes{};
  auto operator<=>(const TenantKey&) const = default;
};

// The beginning of a prompt that every tenant may share, as its operator said. Blocks that lie wholly inside are keyed
// with `key` instead of the tenant's; travels with the request.
struct PublicPrefix {
  TenantKey key;
  uint32_t tokens = 0;  // of the prompt, from its first; 0: nothing is public
  auto operator<=>(const PublicPrefix&) const = default;
};

struct LayerRange {
  uint16_t first = 0, count = 0;
  auto operator<=>(const LayerRange&) const = default;
};

// A small id of everything that decides rounding; listed, append-only, in docs/numerics.md.
enum class NumericsClass : uint16_t {};

// Of blocks computed over a prefix of another class: equal to nothing, not even to itself, so never shared.
inline constexpr NumericsClass kNumericsMixed{0xffff};

// How K and V lie in a block: as bf16, or as int8 codes with an f32 scale for each token and kv head of K, and of V.
enum class KvDtype : uint8_t { kBf16, kInt8 };
std::string_view kv_dtype_name(KvDtype dtype);  // "bf16", "int8": --kv-dtype

struct BlockEncoding {  // how values are stored; never part of the key
  enum class Order : uint8_t { kCanonical, kCpuTiled };
  Order order = Order::kCpuTiled;
  KvDtype dtype = KvDtype::kBf16;
  NumericsClass numerics{};
  bool operator==(const BlockEncoding&) const = default;
};

// The table of parts of one block: part l holds layer l's K then V, each [kv_head][...] in the encoding's order; for
// int8 then the scales of K, those of V, each f32 [kv_head][block_tokens]; padded to whole pages. Device slot, host
// slot, file slot and wire carry the same part bytes.
struct KvLayout {
  uint16_t layer_count = 0, kv_heads = 0, head_dim = 0;  // head_dim: even
  uint16_t block_tokens = 64;                            // a multiple of 16
  KvDtype dtype = KvDtype::kBf16;
  size_t value_bytes() const { return dtype == KvDtype::kInt8 ? 1 : 2; }
  size_t scale_bytes() const { return dtype == KvDtype::kInt8 ? sizeof(float) : 0; }
  // One layer's K without scales, and its scales; V's are as large.
  size_t k_bytes() const { return size_t{kv_heads} * block_tokens * head_dim * value_bytes(); }
  size_t k_scale_bytes() const { return size_t{kv_heads} * block_tokens * scale_bytes(); }
  // K and V of one token in one layer, with their scales.
  size_t token_bytes() const { return 2 * size_t{kv_heads} * (head_dim * value_bytes() + scale_bytes()); }
  size_t part_bytes() const { return (block_tokens * token_bytes() + kPageBytes - 1) / kPageBytes * kPageBytes; }
  size_t block_bytes() const { return part_bytes() * layer_count; }
  uint32_t blocks_for(uint32_t tokens) const { return (tokens + block_tokens - 1) / block_tokens; }
  bool operator==(const KvLayout&) const = default;
};

// Slots over memory that the Backend allocated: slot s starts at base + s * (header_bytes + block_bytes).
struct SlotArena {
  std::byte* base = nullptr;
  size_t header_bytes = 0;  // 4096 on host and NVMe, 0 where the engine computes
  KvLayout layout;
  uint32_t slot_count = 0;
  // Bytes of adjacent parts of one slot. REQUIRES slot and layers within bounds (CHECK); base is 4096-aligned.
  std::span<std::byte> parts(SlotId slot, LayerRange layers) const;
};

}  // namespace spillway

template <>
struct std::hash<spillway::BlockKey> {
  size_t operator()(const spillway::BlockKey& key) const noexcept {
    size_t value = 0;  // the key is already uniformly distributed
    std::memcpy(&value, key.bytes.data(), sizeof value);
    return value;
  }
};
