#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "formats/gguf.h"
#include "tests/support/gguf_writer.h"

// Files that lie. Each must end in an Error: under the address sanitizer these tests also prove that nothing is read
// outside the bytes, and that no count from the file is allocated before it is believed.
namespace spillway {
namespace {

using Bytes = std::vector<std::byte>;

GgufWriter small_file() {
  GgufWriter writer;
  writer.add("general.architecture", "llama").add("count", uint32_t{3}).add("flag", true);
  writer.add_array("names", std::vector<std::string>{"alpha", "beta"}).add_array("ints", std::vector<int16_t>{1, 2});
  writer.add_tensor("first", GgufType::kF32, {4, 2}, Bytes(32)).add_tensor("second", GgufType::kQ8_0, {32}, Bytes(34));
  return writer;
}

template <class T>
void patch(Bytes& bytes, size_t at, T value) {
  ASSERT_LE(at + sizeof value, bytes.size());
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

size_t end_of(const Bytes& bytes, std::string_view text) {
  const auto* const first = reinterpret_cast<const char*>(bytes.data());
  const auto* const found = std::search(first, first + bytes.size(), text.begin(), text.end());
  if (found == first + bytes.size()) throw std::runtime_error("the file has no such text");
  return static_cast<size_t>(found - first) + text.size();
}

void expect_refused(const Bytes& bytes, ErrorCode code, std::string_view part) {
  const Result<GgufFile> file = GgufFile::from_bytes(bytes);
  ASSERT_FALSE(file) << "accepted; expected: " << part;
  EXPECT_EQ(file.error().code, code) << file.error().detail;
  EXPECT_NE(file.error().detail.find(part), std::string::npos) << file.error().detail;
}

TEST(HostileGguf, TruncationAtEveryByteIsRefused) {
  const Bytes whole = small_file().bytes();
  ASSERT_TRUE(GgufFile::from_bytes(whole));
  for (size_t length = 0; length < whole.size(); ++length) {
    // A vector of exactly this size, so that the sanitizer sees the first byte too far.
    const Result<GgufFile> file = GgufFile::from_bytes(Bytes(whole.begin(), whole.begin() + static_cast<long>(length)));
    ASSERT_FALSE(file) << "accepted at " << length << " of " << whole.size();
    EXPECT_EQ(file.error().code, ErrorCode::kCorrupt) << file.error().detail;
  }
}

TEST(HostileGguf, HeaderFieldsAreChecked) {
  const Bytes good = small_file().bytes();
  Bytes bytes = good;
  patch(bytes, 0, uint32_t{0x46554746});
  expect_refused(bytes, ErrorCode::kCorrupt, "no GGUF");
  for (const uint32_t version : {0u, 1u, 4u, 0xFFFFFFFFu}) {
    bytes = good;
    patch(bytes, 4, version);
    expect_refused(bytes, ErrorCode::kUnsupported, "versions 2 and 3");
  }
  bytes = good;
  patch(bytes, 4, uint32_t{0x03000000});
  expect_refused(bytes, ErrorCode::kUnsupported, "big-endian");
  for (const uint64_t count : {uint64_t{1} << 63, ~uint64_t{0}, uint64_t{65537}, uint64_t{60000}}) {
    bytes = good;
    patch(bytes, 8, count);
    expect_refused(bytes, ErrorCode::kCorrupt, "tensors");
    bytes = good;
    patch(bytes, 16, count);
    expect_refused(bytes, ErrorCode::kCorrupt, "metadata entries");
  }
  for (const size_t field : {8u, 16u}) {  // one more or less than there are: the rest is read as something else
    for (const int delta : {-1, 1}) {
      bytes = good;
      patch(bytes, field, static_cast<uint64_t>((field == 8 ? 2 : 5) + delta));
      const Result<GgufFile> file = GgufFile::from_bytes(bytes);
      EXPECT_TRUE(!file || (field == 8 && delta == -1)) << field << " " << delta;
    }
  }
}

TEST(HostileGguf, LengthsAndCountsOf2To63AreRefusedBeforeAnyAllocation) {
  const Bytes good = small_file().bytes();
  for (const uint64_t huge : {uint64_t{1} << 63, ~uint64_t{0}, uint64_t{1} << 40, uint64_t{1} << 25}) {
    Bytes bytes = good;
    patch(bytes, 24, huge);  // the first key's length
    expect_refused(bytes, ErrorCode::kCorrupt, "metadata key");
    bytes = good;
    patch(bytes, end_of(good, "general.architecture") + 4, huge);
    expect_refused(bytes, ErrorCode::kCorrupt, "metadata string");
    bytes = good;
    patch(bytes, end_of(good, "names") + 8, huge);
    expect_refused(bytes, ErrorCode::kCorrupt, "array");
    bytes = good;
    patch(bytes, end_of(good, "names") + 16, huge);  // the first item's length
    expect_refused(bytes, ErrorCode::kCorrupt, "metadata string");
    bytes = good;
    patch(bytes, end_of(good, "first") - 13, huge);
    expect_refused(bytes, ErrorCode::kCorrupt, "tensor name");
  }
}

TEST(HostileGguf, TypesThatGgufDoesNotKnowAreRefused) {
  const Bytes good = small_file().bytes();
  Bytes bytes = good;
  patch(bytes, end_of(good, "count"), uint32_t{13});
  expect_refused(bytes, ErrorCode::kCorrupt, "\"count\" has value type 13");
  bytes = good;
  patch(bytes, end_of(good, "ints") + 4, uint32_t{0xFFFFFFFF});
  expect_refused(bytes, ErrorCode::kCorrupt, "\"ints\"");
  bytes = good;
  patch(bytes, end_of(good, "flag") + 4, uint8_t{2});
  expect_refused(bytes, ErrorCode::kCorrupt, "boolean");
}

TEST(HostileGguf, NestedArraysAreRefusedHoweverDeep) {
  Bytes nested;
  for (int depth = 0; depth < 100'000; ++depth) {
    const Bytes level = {std::byte{GgufWriter::kArrayType}, {}, {}, {}, std::byte{1}, {}, {}, {}, {}, {}, {}, {}};
    nested.insert(nested.end(), level.begin(), level.end());
  }
  expect_refused(GgufWriter().add_raw("deep", GgufWriter::kArrayType, nested).bytes(), ErrorCode::kUnsupported, "deep");
}

TEST(HostileGguf, ManyArraysMayNotTogetherHoldMoreThanTheBound) {
  const std::vector<uint8_t> items(size_t{9} << 20);  // two are above 2^24 items
  const Bytes bytes = GgufWriter().add_array("one", items).add_array("two", items).bytes();
  expect_refused(bytes, ErrorCode::kCorrupt, "\"two\"");
}

TEST(HostileGguf, DuplicatesAndEmptyKeysAreRefused) {
  expect_refused(GgufWriter().add("key", true).add("key", false).bytes(), ErrorCode::kCorrupt,
                 "\"key\" is there twice");
  expect_refused(GgufWriter().add("", true).bytes(), ErrorCode::kCorrupt, "empty");
  GgufWriter twice;
  twice.add_tensor("t", GgufType::kF32, {1}, Bytes(4)).add_tensor("t", GgufType::kF32, {1}, Bytes(4));
  expect_refused(twice.bytes(), ErrorCode::kCorrupt, "tensor \"t\" is there twice");
}

TEST(HostileGguf, AnArrayItemAbove63BitsIsRefusedNotWrapped) {
  const Bytes bytes = GgufWriter().add_array("big", std::vector<uint64_t>{uint64_t{1} << 63}).bytes();
  expect_refused(bytes, ErrorCode::kUnsupported, "big");
}

TEST(HostileGguf, AlignmentMustBeAPowerOfTwoOfTheRightType) {
  for (const uint32_t alignment : {0u, 1u, 4u, 12u, 33u, 131072u, 0x80000000u})
    expect_refused(GgufWriter().add("general.alignment", alignment).bytes(), ErrorCode::kCorrupt, "power of two");
  expect_refused(GgufWriter().add("general.alignment", "32").bytes(), ErrorCode::kCorrupt, "general.alignment");
  expect_refused(GgufWriter().add("general.alignment", int32_t{-32}).bytes(), ErrorCode::kCorrupt, "general.alignment");
}

TEST(HostileGguf, ShapesThatCannotBeAreRefused) {
  const uint64_t huge = uint64_t{1} << 63;
  const std::vector<uint64_t> shapes[] = {{},
                                          {0},
                                          {1, 0},
                                          {1, 1, 1, 1, 1},
                                          {huge},
                                          {huge, huge},
                                          {huge, 2},
                                          {uint64_t{1} << 32, uint64_t{1} << 32},
                                          {1000},
                                          {2, 2, 2, 2},
                                          {uint64_t{1} << 62}};
  for (const auto& shape : shapes)
    expect_refused(GgufWriter().add_tensor("t", GgufType::kF32, shape, Bytes(8)).bytes(), ErrorCode::kCorrupt, "\"t\"");
  for (const GgufType type : {GgufType::kQ8_0, GgufType::kQ4_0, GgufType::kQ4_1, GgufType::kQ5_0, GgufType::kQ5_1})
    for (const uint64_t cols : {uint64_t{1}, uint64_t{33}, huge - 1})
      expect_refused(GgufWriter().add_tensor("t", type, {cols}, Bytes(99)).bytes(), ErrorCode::kCorrupt,
                     "blocks of 32");
  for (const GgufType type : {GgufType::kQ4_K, GgufType::kQ5_K, GgufType::kQ6_K}) {
    for (const uint64_t cols : {uint64_t{32}, uint64_t{255}, uint64_t{576}, huge - 1})
      expect_refused(GgufWriter().add_tensor("t", type, {cols}, Bytes(999)).bytes(), ErrorCode::kCorrupt,
                     "blocks of 256");
    // Sizes that overflow 64 bits by their blocks alone, and only times the bytes of a block.
    for (const std::vector<uint64_t>& shape :
         {std::vector<uint64_t>{huge, huge}, {256, huge, 2}, {uint64_t{1} << 40, uint64_t{1} << 25}, {0, 4}, {256, 0}})
      expect_refused(GgufWriter().add_tensor("t", type, shape, Bytes(999)).bytes(), ErrorCode::kCorrupt, "cannot be");
  }
}

// One byte less than its last block needs: the size is that of the type, not of its neighbours.
TEST(HostileGguf, BlocksCutShortAreRefused) {
  struct Case {
    GgufType type;
    uint64_t values, bytes;
  };
  for (const auto& [type, values, bytes] :
       {Case{GgufType::kF16, 1, 2}, Case{GgufType::kQ4_0, 32, 18}, Case{GgufType::kQ5_0, 32, 22},
        Case{GgufType::kQ5_1, 32, 24}, Case{GgufType::kQ4_K, 256, 144}, Case{GgufType::kQ5_K, 256, 176},
        Case{GgufType::kQ6_K, 256, 210}}) {
    GgufWriter whole, cut;
    whole.add_tensor("t", type, {values, 3}, Bytes(3 * bytes));
    cut.add_tensor("t", type, {values, 3}, Bytes(3 * bytes - 1));
    EXPECT_TRUE(GgufFile::from_bytes(whole.bytes()));
    expect_refused(cut.bytes(), ErrorCode::kCorrupt, "truncated");
  }
}

TEST(HostileGguf, KBlocksThatRunIntoTheNextTensorAreRefused) {
  GgufWriter writer;
  writer.add_tensor("first", GgufType::kQ6_K, {256, 2}, Bytes(420 - 32));  // its second block lies under the next
  writer.add_tensor("second", GgufType::kQ4_K, {256}, Bytes(144));
  expect_refused(writer.bytes(), ErrorCode::kCorrupt, "\"first\" and \"second\" overlap");
}

TEST(HostileGguf, TensorsOutsideTheFileOverlappingOrUnalignedAreRefused) {
  const Bytes good = small_file().bytes();
  const size_t second_offset = end_of(good, "second") + 4 + 8 + 4;
  for (const uint64_t offset : {uint64_t{64}, uint64_t{1} << 40, ~uint64_t{0} - 31, uint64_t{1} << 63}) {
    Bytes bytes = good;
    patch(bytes, second_offset, offset);
    expect_refused(bytes, ErrorCode::kCorrupt, "\"second\" needs 34 bytes");
  }
  Bytes bytes = good;
  patch(bytes, second_offset, uint64_t{0});
  expect_refused(bytes, ErrorCode::kCorrupt, "overlap");
  bytes = good;
  patch(bytes, second_offset, uint64_t{31});
  expect_refused(bytes, ErrorCode::kCorrupt, "alignment");
}

TEST(HostileGguf, BinaryNamesAreEscapedAndCutInErrors) {
  const std::string name(60, '\n');
  const Bytes bytes = GgufWriter().add(std::string(2000, '\x01'), true).add(std::string(2000, '\x01'), true).bytes();
  const Error twice = GgufFile::from_bytes(bytes).error();
  EXPECT_LT(twice.detail.size(), 400u);
  EXPECT_EQ(twice.detail.find('\x01'), std::string::npos);
  const Error type = GgufFile::from_bytes(GgufWriter().add_tensor(name, 10, {1}, Bytes(2)).bytes()).error();
  EXPECT_EQ(type.detail.find('\n'), std::string::npos);
}

TEST(HostileGguf, RandomDamageNeverReadsOutsideTheFile) {
  const Bytes good = small_file().bytes();
  std::mt19937 random(20261124);
  size_t accepted = 0;
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes = good;
    for (uint32_t count = 1 + random() % 4; count > 0; --count)
      bytes[random() % bytes.size()] = static_cast<std::byte>(random() % 3 == 0 ? 0xFF : random());
    const Result<GgufFile> file = GgufFile::from_bytes(bytes);
    if (!file) continue;
    ++accepted;
    for (const GgufTensor& tensor : file->tensors()) {
      ASSERT_GE(tensor.bytes.data(), file->bytes().data());
      ASSERT_LE(tensor.bytes.data() + tensor.bytes.size(), file->bytes().data() + file->bytes().size());
    }
  }
  EXPECT_GT(accepted, 0u);  // damage in a value or in tensor data is not visible to a reader
  EXPECT_LT(accepted, 20'000u);
}

}  // namespace
}  // namespace spillway
