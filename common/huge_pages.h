#pragma once

#include <cstddef>
#include <span>

namespace spillway {

// Pages of 2 MiB: what is read from end to end for each token, as weights are, then costs a CPU hundreds of times fewer
// look-ups of addresses.
inline constexpr size_t kHugePageBytes = size_t{2} << 20;

// mmap(2) of `bytes` of a file from its beginning; one of kHugePageBytes and more begins at a multiple of that, so that
// the kernel can map in huge pages what it holds in such. MAP_FAILED with errno as mmap(2); munmap(2) with `bytes` ends
// it.
void* map_file(size_t bytes, int protection, int flags, int file);

// Asks the kernel to hold the file behind this mapping in huge pages from here on: Linux with file systems of large
// folios (XFS; ext4 from 6.16) does, where it is not in memory yet. Elsewhere nothing happens.
void prefer_huge_pages(std::span<const std::byte> mapping);

// Moves what is in memory of a memfd behind this mapping into huge pages (Linux 6.1), which takes about as long as
// copying it. Where the kernel cannot, nothing happens.
void collapse_into_huge_pages(std::span<const std::byte> mapping);

}  // namespace spillway
