#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// Digests of KV bytes: pure functions, any thread.
namespace spillway {

// Digest of encoded KV bytes: CRC32C of the CRC32Cs (little-endian) of the 4 KiB pages; the last page may be short.
uint32_t part_digest(std::span<const std::byte> part);

// The same, while copying; each byte of `source` is read once and the digest is of `destination`, so what is digested
// is what was copied, even when a peer writes `source` meanwhile. REQUIRES equal sizes, no overlap.
uint32_t copy_part(std::span<const std::byte> source, std::span<std::byte> destination);

// CRC32C over a sequence of part digests (little-endian), as a frame header carries it.
uint32_t combine_digests(std::span<const uint32_t> part_digests);

}  // namespace spillway
