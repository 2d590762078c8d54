#include "common/huge_pages.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>

namespace spillway {
namespace {

#ifdef MADV_COLLAPSE
constexpr int kCollapse = MADV_COLLAPSE;
#else
constexpr int kCollapse = 25;  // of Linux's own headers, which older C libraries do not repeat
#endif

void advise(std::span<const std::byte> mapping, int advice) {
  ::madvise(const_cast<std::byte*>(mapping.data()), mapping.size(), advice);
}

}  // namespace

void* map_file(size_t bytes, int protection, int flags, int file) {
  if (bytes < kHugePageBytes) return ::mmap(nullptr, bytes, protection, flags, file, 0);
  const size_t reserved = bytes + kHugePageBytes;
  void* const base = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED) return MAP_FAILED;
  auto* const begin = static_cast<std::byte*>(base);
  const size_t before = -reinterpret_cast<uintptr_t>(base) % kHugePageBytes;
  void* const mapped = ::mmap(begin + before, bytes, protection, flags | MAP_FIXED, file, 0);
  if (mapped == MAP_FAILED) {
    ::munmap(base, reserved);
    return MAP_FAILED;
  }
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t end = (before + bytes + page - 1) / page * page;
  if (before > 0) ::munmap(base, before);
  if (end < reserved) ::munmap(begin + end, reserved - end);
  return mapped;
}

void prefer_huge_pages(std::span<const std::byte> mapping) { advise(mapping, MADV_HUGEPAGE); }

void collapse_into_huge_pages(std::span<const std::byte> mapping) { advise(mapping, kCollapse); }

}  // namespace spillway
