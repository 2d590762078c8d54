#include "common/huge_pages.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <fstream>

#include "common/unique_fd.h"

namespace spillway {
namespace {

struct Mapping {
  std::byte* memory;
  size_t bytes;
  Mapping(int file, size_t size, int protection = PROT_READ | PROT_WRITE)
      : memory(static_cast<std::byte*>(map_file(size, protection, MAP_SHARED, file))), bytes(size) {}
  ~Mapping() {
    if (memory != MAP_FAILED) ::munmap(memory, bytes);
  }
};

// Of address space that this process holds.
size_t held_bytes() {
  std::ifstream file("/proc/self/statm");
  size_t pages = 0;
  file >> pages;
  return pages * static_cast<size_t>(::sysconf(_SC_PAGESIZE));
}

TEST(HugePages, MappingsOfThatSizeBeginAtOne) {
  const UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  for (const size_t bytes : {size_t{1}, size_t{12345}, kHugePageBytes, 3 * kHugePageBytes + 4097}) {
    ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(bytes)), 0);
    const Mapping mapping(file.get(), bytes);
    ASSERT_NE(mapping.memory, MAP_FAILED);
    EXPECT_EQ(bytes < kHugePageBytes ? 0 : reinterpret_cast<uintptr_t>(mapping.memory) % kHugePageBytes, 0u);
    std::memset(mapping.memory, 7, bytes);
    prefer_huge_pages({mapping.memory, bytes});
    collapse_into_huge_pages({mapping.memory, bytes});
    const Mapping other(file.get(), bytes, PROT_READ);
    EXPECT_EQ(std::memcmp(other.memory, mapping.memory, bytes), 0);
    EXPECT_EQ(std::to_integer<int>(other.memory[bytes - 1]), 7);
  }
}

TEST(HugePages, NothingIsLeftBehind) {
  const UniqueFd file(::memfd_create("test", MFD_CLOEXEC));
  const size_t before = held_bytes();
  for (int turn = 0; turn < 1000; ++turn) {
    const size_t bytes = kHugePageBytes + static_cast<size_t>(turn) * 1000;
    const Mapping mapping(file.get(), bytes);
    ASSERT_NE(mapping.memory, MAP_FAILED);
    EXPECT_EQ(map_file(bytes, PROT_READ, MAP_SHARED, -1), MAP_FAILED);
  }
  EXPECT_LT(held_bytes(), before + 100 * kHugePageBytes);
}

TEST(HugePages, WhatCannotBeMappedIsAnErrorAsOfMmap) {
  for (const size_t bytes : {size_t{4096}, 2 * kHugePageBytes}) {
    errno = 0;
    EXPECT_EQ(map_file(bytes, PROT_READ, MAP_SHARED, -1), MAP_FAILED);
    EXPECT_EQ(errno, EBADF);
  }
}

}  // namespace
}  // namespace spillway
