#include "kv/digest.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <string_view>
#include <vector>

#include "kv/block.h"

namespace spillway {
namespace {

std::vector<std::byte> pattern(size_t size) {
  std::vector<std::byte> bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 + 7);
  return bytes;
}

// Expected values: a bit-by-bit CRC32C in Python. crc32c("abc") = 364b3fb7, so part_digest is crc32c(b7 3f 4b 36).
TEST(PartDigest, KnownAnswers) {
  EXPECT_EQ(part_digest({}), 0u);
  EXPECT_EQ(part_digest(std::as_bytes(std::span(std::string_view("abc")))), 0xa06740cau);
  EXPECT_EQ(part_digest(pattern(4096)), 0x0b9e9815u);
  EXPECT_EQ(part_digest(pattern(10000)), 0x799272ffu);
}

TEST(CombineDigests, KnownAnswers) {
  EXPECT_EQ(combine_digests(std::vector<uint32_t>{1, 0xdeadbeef, 0x12345678}), 0x334d49c7u);
  // One page's digest is the chain over that page's CRC alone.
  EXPECT_EQ(combine_digests(std::vector<uint32_t>{0x364b3fb7}), 0xa06740cau);
}

RC_GTEST_PROP(CopyPart, CopiesAndDigestsAsPartDigestDoes, ()) {
  const auto source = pattern(*rc::gen::inRange<size_t>(0, 3 * kPageBytes));
  std::vector<std::byte> destination(source.size() + 1, std::byte{0x5a});
  const uint32_t digest = copy_part(source, std::span(destination).first(source.size()));
  RC_ASSERT(digest == part_digest(source));
  RC_ASSERT(destination.back() == std::byte{0x5a});
  destination.pop_back();
  RC_ASSERT(destination == source);
}

RC_GTEST_PROP(PartDigest, AnyFlippedBitChangesIt, ()) {
  auto bytes = pattern(*rc::gen::inRange<size_t>(1, 2 * kPageBytes + 100));
  const uint32_t before = part_digest(bytes);
  bytes[*rc::gen::inRange<size_t>(0, bytes.size())] ^= static_cast<std::byte>(1u << *rc::gen::inRange(0, 8));
  RC_ASSERT(part_digest(bytes) != before);
}

TEST(PartDigest, TornPageChangesIt) {
  const auto whole = pattern(4 * kPageBytes);
  for (size_t page = 0; page < 4; ++page) {
    auto torn = whole;  // half of this page never arrived
    std::fill_n(torn.begin() + static_cast<ptrdiff_t>(page * kPageBytes + kPageBytes / 2), kPageBytes / 2,
                std::byte{0});
    EXPECT_NE(part_digest(torn), part_digest(whole)) << page;
  }
}

TEST(PartDigest, SwappedPagesChangeIt) {
  auto bytes = pattern(2 * kPageBytes);
  bytes[0] ^= std::byte{1};  // the pattern repeats every 256 bytes: make the pages differ
  const uint32_t before = part_digest(bytes);
  std::swap_ranges(bytes.begin(), bytes.begin() + kPageBytes, bytes.begin() + kPageBytes);
  EXPECT_NE(part_digest(bytes), before);
}

TEST(CopyPartDeathTest, UnequalSizesAreAProgrammerError) {
  std::vector<std::byte> bytes(2);
  EXPECT_DEATH(copy_part(std::span(bytes).first(1), bytes), "CHECK failed");
}

}  // namespace
}  // namespace spillway
