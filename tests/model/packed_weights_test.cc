#include "model/packed_weights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "common/check.h"
#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

ModelConfig config_of(const GgufFile& file) { return *read_model_config(file); }

PackedWeights pack(const GgufFile& file, uint32_t threads = 2) {
  const auto backend = make_backend({"scalar", threads});
  return WeightPacker(file, config_of(file), *backend).pack_in_memory();
}

std::vector<std::byte> bytes_of(const PackedWeights& packed) {
  const Result<MappedFile> file = MappedFile::map(packed.fd(), "packed");
  CHECK(file);
  return {file->bytes().begin(), file->bytes().end()};
}

UniqueFd file_of(std::span<const std::byte> bytes) {
  UniqueFd file(::memfd_create("bytes", MFD_CLOEXEC));
  CHECK(file && ::write(file.get(), bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  return file;
}

bool same_matrices(const Weights& a, const Weights& b) {
  const auto left = a.matrices(), right = b.matrices();
  return std::ranges::equal(left, right, [](const Weight* x, const Weight* y) {
    return x->rows == y->rows && x->cols == y->cols && x->order == y->order && x->bytes == y->bytes &&
           std::memcmp(x->data, y->data, x->bytes) == 0;
  });
}

TEST(PackedWeights, HoldWhatPackingGivesByteForByte) {
  for (const bool tied : {true, false}) {
    const GgufFile file = make_tiny_model({.seed = 7, .layers = 3, .feed_forward = 160, .tied = tied}).open();
    const auto packer = make_backend({"scalar", 1}), mapper = make_backend({"scalar", 1});
    const PackedWeights packed = pack(file);
    const std::vector<PackedMatrix> matrices = packed.matrices();
    const Weights own = *load_weights(file, config_of(file), *packer);
    const Weights mapped = *load_weights(file, config_of(file), *mapper, matrices);
    EXPECT_TRUE(same_matrices(own, mapped));
    EXPECT_EQ(mapped.layers[0].qkv.data, matrices[0].bytes.data());  // in place, not a copy
    EXPECT_EQ(packed.model_digest(), digest_of(file));
    EXPECT_TRUE(packed.intact());
  }
}

TEST(PackedWeights, AnyThreadCountPacksTheSameBytes) {
  const GgufFile file = make_tiny_model({}).open();
  EXPECT_EQ(bytes_of(pack(file, 1)), bytes_of(pack(file, 3)));
}

TEST(PackedWeights, InMemoryAreSealed) {
  const PackedWeights packed = pack(make_tiny_model({}).open());
  const int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;
  EXPECT_EQ(::fcntl(packed.fd(), F_GET_SEALS), seals);
  EXPECT_NE(::ftruncate(packed.fd(), 0), 0);
  EXPECT_EQ(::pwrite(packed.fd(), "x", 1, 0), -1);
  EXPECT_EQ(::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, packed.fd(), 0), MAP_FAILED);
}

// Every byte that means something: a flip of any is found before it is used.
TEST(PackedWeights, EveryDamageIsFound) {
  const GgufFile file = make_tiny_model({}).open();
  const PackedWeights packed = pack(file);
  const std::vector<std::byte> good = bytes_of(packed);
  const Result<PackedHeader> header = read_header(good);
  ASSERT_TRUE(header);
  const auto survives = [&](std::span<const std::byte> bytes) {
    const Result<PackedWeights> mapped = PackedWeights::map(file_of(bytes), "it", header->key);
    if (!mapped) {
      EXPECT_EQ(mapped.error().code, ErrorCode::kCorrupt) << mapped.error().detail;
      return false;
    }
    return mapped->intact().has_value();
  };
  EXPECT_TRUE(survives(good));
  const size_t table_end = 168 + header->entries.size() * 96;
  for (size_t at = 0; at < table_end; at += at < 400 ? 1 : 13) {
    if (at >= kProgressOffset && at < kProgressOffset + 8) continue;  // how far the writer was: means nothing now
    std::vector<std::byte> bad = good;
    bad[at] ^= std::byte{4};
    EXPECT_FALSE(survives(bad)) << at;
  }
  for (const PackedEntry& entry : header->entries)
    for (const size_t at : {entry.offset, entry.offset + entry.bytes / 2, entry.offset + entry.bytes - 1}) {
      std::vector<std::byte> bad = good;
      bad[at] ^= std::byte{1};
      EXPECT_FALSE(survives(bad)) << entry.name;
    }
  for (const size_t size : {size_t{1}, size_t{4095}, size_t{4096}, header->bytes(), good.size() / 2, good.size() - 1})
    EXPECT_FALSE(survives(std::span(good).first(size))) << size;
  std::vector<std::byte> longer = good;
  longer.resize(good.size() + 4096);
  EXPECT_FALSE(survives(longer));
}

// A table that points out of its file, under a digest that is right.
TEST(PackedWeights, ATableThatPointsOutsideIsRefused) {
  const GgufFile file = make_tiny_model({}).open();
  const PackedWeights packed = pack(file);
  const std::vector<std::byte> good = bytes_of(packed);
  const PackedHeader header = *read_header(good);
  const auto refused = [&](size_t index, size_t offset, size_t bytes) {
    PackedHeader hostile = header;
    hostile.entries[index].offset = offset;
    hostile.entries[index].bytes = bytes;
    std::vector<std::byte> image = good;
    write_header(hostile, image);
    return !read_header(image);
  };
  EXPECT_FALSE(refused(0, header.entries[0].offset, header.entries[0].bytes));
  EXPECT_TRUE(refused(0, good.size() + 4096, 1));
  EXPECT_TRUE(refused(0, good.size() - 4096, 4097));
  EXPECT_TRUE(refused(0, SIZE_MAX - 4095, 8192));  // their sum wraps
  EXPECT_TRUE(refused(0, 4096, SIZE_MAX));
  EXPECT_TRUE(refused(0, 4097, 1));  // no page border
}

TEST(PackedWeights, AnotherModelOrPackingIsRefused) {
  const GgufFile file = make_tiny_model({}).open();
  const PackedWeights packed = pack(file);
  const std::vector<std::byte> bytes = bytes_of(packed);
  const PackedKey key = read_header(bytes)->key;
  const auto maps = [&](const PackedKey& asked) { return PackedWeights::map(file_of(bytes), "it", asked).has_value(); };
  EXPECT_TRUE(maps(key));
  for (int field = 0; field < 5; ++field) {
    PackedKey other = key;
    if (field == 0) ++other.model.device;
    if (field == 1) ++other.model.inode;
    if (field == 2) ++other.model.bytes;
    if (field == 3) ++other.model.modified_ns;
    if (field == 4) other.pack_format += "x";
    EXPECT_FALSE(maps(other)) << field;
    EXPECT_NE(other.file_name(), key.file_name());
  }
}

TEST(PackedWeights, MatricesThatDoNotFitTheTensorsAreRefused) {
  const GgufFile file = make_tiny_model({}).open();
  const auto backend = make_backend({"scalar", 1});
  const PackedWeights packed = pack(file);
  const auto refused = [&](auto&& change) {
    std::vector<PackedMatrix> matrices = packed.matrices();
    change(matrices);
    const Result<Weights> weights = load_weights(file, config_of(file), *backend, matrices);
    return !weights && weights.error().code == ErrorCode::kCorrupt;
  };
  EXPECT_FALSE(refused([](auto&) {}));
  EXPECT_TRUE(refused([](auto& all) { all.pop_back(); }));
  EXPECT_TRUE(refused([](auto& all) { all.push_back(all.back()); }));
  EXPECT_TRUE(refused([](auto& all) { all[1].bytes = all[1].bytes.first(all[1].bytes.size() - 1); }));
  EXPECT_TRUE(refused([](auto& all) { all[0].name = "blk.1.attn_q.weight"; }));
}

TEST(PackedFileName, IsTakenApartAndNothingElseIs) {
  const PackedKey key{{0x10302, 0xabc, 1234, -5}, "cpu-panels-1"};
  const auto name = read_packed_file_name(key.file_name());
  ASSERT_TRUE(name) << key.file_name();
  EXPECT_EQ(name->layout, kPackedLayout);
  EXPECT_EQ(name->model, "10302-abc");
  EXPECT_EQ(name->pack_format, "cpu-panels-1");
  EXPECT_EQ(read_packed_file_name("0123456789abcdef0123456789abcdef.cpu-bf16-panels-1")->layout, 1u);
  for (const char* const other :
       {"", ".", "a.packed2", "1-2-3-4.x.packed", "1-2-3-4.x.packed2x", "1-2-3-4.x.packed99999999999", "photo.jpg",
        "1-2-3-4.x.packed2.spillway-new.packer", "x-2-3-4.y.packed2", "0123456789abcdef0123456789abcdef.txt"})
    EXPECT_FALSE(read_packed_file_name(other)) << other;
}

}  // namespace
}  // namespace spillway
