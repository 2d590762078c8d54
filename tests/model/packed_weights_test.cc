#include "model/packed_weights.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "common/check.h"
#include "common/unique_fd.h"
#include "tests/model/decoder_harness.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

namespace fs = std::filesystem;

class PackedWeightsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/packed-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
  }
  void TearDown() override { fs::remove_all(folder_); }

  ModelId id_of(const GgufFile& file) const { return compute_model_id(file, config_of(file), 64); }
  static ModelConfig config_of(const GgufFile& file) { return *read_model_config(file); }
  PackedWeights find_or_make(const GgufFile& file, uint32_t threads = 2) const {
    return PackedWeights::find_or_make(folder_, file, config_of(file), id_of(file), {"scalar", threads});
  }
  std::string path_of(const GgufFile& file) const {
    return folder_ + "/" + PackedWeights::file_name(id_of(file), make_backend({"scalar", 1})->pack_format());
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) names.push_back(entry.path());
    return names;
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }
  static bool same_matrices(const Weights& a, const Weights& b) {
    const auto left = a.matrices(), right = b.matrices();
    return std::ranges::equal(left, right, [](const Weight* x, const Weight* y) {
      return x->rows == y->rows && x->cols == y->cols && x->order == y->order && x->bytes == y->bytes &&
             std::memcmp(x->data, y->data, x->bytes) == 0;
    });
  }
  std::string folder_;
};

TEST_F(PackedWeightsTest, HoldWhatPackingGivesByteForByte) {
  for (const bool tied : {true, false}) {
    const GgufFile file = make_tiny_model({.seed = 7, .layers = 3, .feed_forward = 160, .tied = tied}).open();
    const auto packer = make_backend({"scalar", 1}), mapper = make_backend({"scalar", 1});
    const PackedWeights packed = find_or_make(file);
    const Weights own = *load_weights(file, config_of(file), *packer);
    const Weights mapped = *load_weights(file, config_of(file), *mapper, packed.bytes());
    EXPECT_TRUE(same_matrices(own, mapped));
    EXPECT_EQ(mapped.layers[0].qkv.data, packed.bytes().data());  // in place, not a copy
  }
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(PackedWeightsTest, AnyThreadCountWritesTheSameFileAndASecondStartUsesIt) {
  const GgufFile file = make_tiny_model({}).open();
  (void)find_or_make(file, 1);
  const std::string first = read(path_of(file));
  const auto written = fs::last_write_time(path_of(file));
  (void)find_or_make(file, 3);
  EXPECT_EQ(fs::last_write_time(path_of(file)), written);
  fs::remove(path_of(file));
  (void)find_or_make(file, 3);
  EXPECT_EQ(read(path_of(file)), first);
}

TEST_F(PackedWeightsTest, ADamagedFileIsPackedAgain) {
  const GgufFile file = make_tiny_model({}).open();
  (void)find_or_make(file);
  const std::string path = path_of(file), good = read(path);
  const auto flipped = [&](size_t at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    return bytes;
  };
  const ModelId id = id_of(file);
  const std::string format(make_backend({"scalar", 1})->pack_format());
  for (const std::string& bad : {std::string("x"), good.substr(0, good.size() - 1), good.substr(0, kPageBytes),
                                 good + "x", flipped(0), flipped(16), flipped(32), flipped(80), flipped(88),
                                 flipped(kPageBytes), flipped(good.size() / 2), flipped(good.size() - 1)}) {
    write(path, bad);
    const Result<PackedWeights> mapped = PackedWeights::map(path, id, format);
    ASSERT_FALSE(mapped);
    EXPECT_EQ(mapped.error().code, ErrorCode::kCorrupt) << mapped.error().detail;
    (void)find_or_make(file);
    EXPECT_EQ(read(path), good);
  }
  EXPECT_FALSE(PackedWeights::map(path, id, "another-format"));
  EXPECT_FALSE(PackedWeights::map(path, ModelId{}, format));
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(PackedWeightsTest, BytesThatDoNotFitTheTensorsAreRefused) {
  const GgufFile file = make_tiny_model({}).open();
  const auto backend = make_backend({"scalar", 1});
  const PackedWeights packed = find_or_make(file);
  std::vector<std::byte> bytes(packed.bytes().begin(), packed.bytes().end());
  bytes.resize(bytes.size() + kPageBytes);
  for (const size_t size : {bytes.size(), bytes.size() - 2 * kPageBytes, kPageBytes}) {
    const Result<Weights> weights = load_weights(file, config_of(file), *backend, std::span(bytes).first(size));
    ASSERT_FALSE(weights);
    EXPECT_EQ(weights.error().code, ErrorCode::kCorrupt);
  }
}

TEST_F(PackedWeightsTest, ManyAtOnceLeaveOneWholeFile) {
  const GgufFile file = make_tiny_model({}).open();
  std::vector<std::jthread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { EXPECT_FALSE(find_or_make(file, 1).bytes().empty()); });
  threads.clear();
  EXPECT_EQ(files(), std::vector<std::string>{path_of(file)});
}

TEST_F(PackedWeightsTest, WhatAKilledWriterLeftIsRemovedAndALivingOneKeepsItsOwn) {
  const GgufFile file = make_tiny_model({}).open();
  write(path_of(file) + ".spillway-new.abcdef", "left");
  write(path_of(file) + ".ghijkl", "being written");
  const UniqueFd living(::open((path_of(file) + ".ghijkl").c_str(), O_RDWR | O_CLOEXEC));
  ASSERT_EQ(::flock(living.get(), LOCK_EX), 0);
  (void)find_or_make(file);
  EXPECT_FALSE(fs::exists(path_of(file) + ".spillway-new.abcdef"));
  EXPECT_TRUE(fs::exists(path_of(file) + ".ghijkl"));
}

TEST_F(PackedWeightsTest, AFolderThatCannotHoldItIsAnErrorWithARemedy) {
  const GgufFile file = make_tiny_model({}).open();
  write(folder_ + "/file", "x");
  for (const char* const bad : {"/file", "/file/below", "/proc/none"}) {
    const std::string folder = bad[1] == 'p' ? bad : folder_ + bad;
    EXPECT_THROW(PackedWeights::find_or_make(folder, file, config_of(file), id_of(file), {"scalar", 1}), SetupError)
        << folder;
  }
  EXPECT_TRUE(PackedWeights::find_or_make("", file, config_of(file), id_of(file), {"scalar", 1}).bytes().empty());
}

}  // namespace
}  // namespace spillway
