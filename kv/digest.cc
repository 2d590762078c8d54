#include "kv/digest.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "kv/block.h"

namespace spillway {
namespace {

// CRC32C (Castagnoli, RFC 3720): ISA-L leaves both inversions to the caller, and takes non-const bytes it only reads.
uint32_t crc32c(const std::byte* data, size_t size) {
  auto* const bytes = reinterpret_cast<unsigned char*>(const_cast<std::byte*>(data));
  return crc32_iscsi(bytes, checked_cast<int>(size), ~0u) ^ ~0u;
}

// CRC32C of a growing sequence of u32, little-endian.
class DigestChain {
 public:
  void add(uint32_t digest) {
    unsigned char bytes[4];
    for (int i = 0; i < 4; ++i) bytes[i] = static_cast<unsigned char>(digest >> (8 * i));
    state_ = crc32_iscsi(bytes, 4, state_);
  }
  uint32_t value() const { return state_ ^ ~0u; }

 private:
  uint32_t state_ = ~0u;
};

}  // namespace

uint32_t part_digest(std::span<const std::byte> part) {
  DigestChain chain;
  for (; !part.empty(); part = part.subspan(std::min(kPageBytes, part.size()))) {
    chain.add(crc32c(part.data(), std::min(kPageBytes, part.size())));
  }
  return chain.value();
}

uint32_t copy_part(std::span<const std::byte> source, std::span<std::byte> destination) {
  CHECK(source.size() == destination.size());
  DigestChain chain;
  for (size_t offset = 0; offset < source.size(); offset += kPageBytes) {
    const size_t size = std::min(kPageBytes, source.size() - offset);
    std::memcpy(destination.data() + offset, source.data() + offset, size);
    // The copy, still in L1: a peer may change the source between two reads, never what was copied.
    chain.add(crc32c(destination.data() + offset, size));
  }
  return chain.value();
}

uint32_t combine_digests(std::span<const uint32_t> part_digests) {
  DigestChain chain;
  for (const uint32_t digest : part_digests) chain.add(digest);
  return chain.value();
}

}  // namespace spillway
