#include "model/weights_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <thread>

#include "common/check.h"
#include "kernels/make_backend.h"
#include "tests/support/captured_log.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

namespace fs = std::filesystem;

class WeightsCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/weights-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    cache_.folder = folder_ + "/cache";
  }
  void TearDown() override { fs::remove_all(folder_); }

  // A tiny model as a file, which find_or_pack() opens anew each time, as each process does.
  std::string model(const std::string& name, uint64_t seed = 1) const {
    const std::vector<std::byte> bytes = make_tiny_model({.seed = seed}).gguf;
    const std::string path = folder_ + "/" + name;
    write(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    return path;
  }
  static GgufFile open(const std::string& path) { return std::move(GgufFile::open(path).value()); }
  PackedWeights find_or_pack(const std::string& path, uint32_t threads = 1) const {
    const GgufFile file = open(path);
    const auto backend = make_backend({"scalar", threads});
    return find_or_pack_weights(file, *read_model_config(file), *backend, cache_);
  }
  static PackedKey key_of(const std::string& path) {
    return {*open(path).facts(), std::string(make_backend({"scalar", 1})->pack_format())};
  }
  std::string cached(const std::string& path) const { return WeightsFolder(cache_.folder).path_of(key_of(path)); }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(cache_.folder)) names.push_back(entry.path());
    return names;
  }
  static std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  static void write(const std::string& path, const std::string& bytes) {
    std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
  }
  static ino_t inode(const std::string& path) {
    struct stat facts {};
    return ::stat(path.c_str(), &facts) == 0 ? facts.st_ino : 0;
  }
  static ino_t inode(const PackedWeights& packed) {
    struct stat facts {};
    CHECK(::fstat(packed.fd(), &facts) == 0);
    return facts.st_ino;
  }
  // As this model's matrices must be, whatever happened.
  static void expect_right(const PackedWeights& packed, const std::string& path) {
    const GgufFile file = open(path);
    const auto backend = make_backend({"scalar", 1}), packer = make_backend({"scalar", 1});
    const Weights own = *load_weights(file, *read_model_config(file), *packer);
    const Result<Weights> mapped = load_weights(file, *read_model_config(file), *backend, packed.matrices());
    ASSERT_TRUE(mapped);
    EXPECT_TRUE(std::ranges::equal(own.matrices(), mapped->matrices(), [](const Weight* x, const Weight* y) {
      return x->bytes == y->bytes && std::memcmp(x->data, y->data, x->bytes) == 0;
    }));
    EXPECT_EQ(packed.model_digest(), digest_of(file));
  }
  // What is logged of warnings and worse while `body` runs.
  template <class Body>
  static std::vector<std::string> warnings(const Body& body) {
    CapturedLog log(LogFormat::kText, spdlog::level::warn);
    body();
    return log.take_lines();
  }
  static void expect_one(const std::vector<std::string>& lines, const std::vector<std::string>& parts) {
    ASSERT_EQ(lines.size(), 1u) << fmt::format("{}", fmt::join(lines, " | "));
    for (const std::string& part : parts)
      EXPECT_NE(lines[0].find(part), std::string::npos) << part << " in " << lines[0];
  }
  static void age(const std::string& path, int64_t hours) {
    timespec times[] = {{0, 0}, {0, UTIME_OMIT}};
    ::clock_gettime(CLOCK_REALTIME, &times[0]);
    times[0].tv_sec -= hours * 3600;
    ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  }
  bool in_cache(const PackedWeights& packed, const std::string& path) const {
    return inode(packed) == inode(cached(path));
  }
  std::string temporary(const std::string& path) const { return cached(path) + ".spillway-new.packer"; }

  std::string folder_;
  WeightsCacheConfig cache_;
};

TEST_F(WeightsCacheTest, ASecondUseMapsTheFirstOnesFile) {
  const std::string path = model("a");
  const auto said = warnings([&] {
    const PackedWeights first = find_or_pack(path, 1);
    const ino_t written = inode(cached(path));
    const PackedWeights second = find_or_pack(path, 3);
    EXPECT_EQ(inode(first), written);
    EXPECT_EQ(inode(second), written);
    expect_right(first, path);
    expect_right(second, path);
  });
  EXPECT_TRUE(said.empty());
  EXPECT_EQ(files(), std::vector{cached(path)});
}

TEST_F(WeightsCacheTest, NoFolderAndNoFileMeanMemory) {
  const std::string path = model("a");
  cache_.folder.clear();
  expect_right(find_or_pack(path), path);
  const GgufFile bytes = make_tiny_model({}).open();
  const auto backend = make_backend({"scalar", 1});
  cache_.folder = folder_ + "/cache";
  const PackedWeights packed = find_or_pack_weights(bytes, *read_model_config(bytes), *backend, cache_);
  EXPECT_FALSE(packed.matrices().empty());
  EXPECT_FALSE(fs::exists(cache_.folder));
}

TEST_F(WeightsCacheTest, ADamagedFileIsPackedAgainWithOneWarning) {
  const std::string path = model("a"), other = model("b", 2);
  const PackedWeights before = find_or_pack(path);
  (void)find_or_pack(other);
  const std::string file = cached(path), good = read(file);
  const auto flipped = [&](size_t at) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 1);
    return bytes;
  };
  for (const std::string& bad :
       {std::string(), std::string("x"), good.substr(0, good.size() - 1), good.substr(0, 4096), good + "x", flipped(0),
        flipped(40), flipped(200), flipped(good.size() / 2), read(cached(other))}) {
    write(folder_ + "/bad", bad);
    fs::rename(folder_ + "/bad", file);
    const ino_t damaged = inode(file);
    const auto said = warnings([&] {
      const PackedWeights packed = find_or_pack(path);
      expect_right(packed, path);
      EXPECT_TRUE(in_cache(packed, path));
    });
    expect_one(said, {"packed again", file});
    EXPECT_NE(inode(file), damaged);  // replaced, not written over
    EXPECT_EQ(read(file), good);
  }
  expect_right(before, path);  // who mapped the first one has it still
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(WeightsCacheTest, AModelFileThatWasReplacedOrWrittenToIsPackedAnew) {
  const std::string path = model("a", 1);
  (void)find_or_pack(path);
  const std::string first = cached(path);
  fs::rename(model("new", 2), path);  // another inode
  expect_right(find_or_pack(path), path);
  const std::string second = cached(path);
  EXPECT_NE(second, first);
  (void)model("a", 3);  // the same inode and size
  age(path, 0);
  const timespec later[] = {{0, UTIME_OMIT}, {2'000'000'000, 5}};
  ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), later, 0), 0);
  expect_right(find_or_pack(path), path);
  EXPECT_NE(cached(path), second);
  EXPECT_FALSE(fs::exists(second));  // what that file was before comes never again
  EXPECT_TRUE(fs::exists(first));    // that one might: its file may have got another name
}

TEST_F(WeightsCacheTest, WhatAKilledWriterLeftIsReplaced) {
  const std::string path = model("a");
  fs::create_directories(cache_.folder);
  write(temporary(path), std::string(9000, 'x'));
  write(cached(path) + ".spillway-new.abcdef", "left");
  EXPECT_EQ(WeightsFolder(cache_.folder).leftovers(key_of(path)).size(), 2u);
  const PackedWeights packed = find_or_pack(path);
  expect_right(packed, path);
  EXPECT_EQ(files(), std::vector{cached(path)});
}

TEST_F(WeightsCacheTest, OfManyAtOnceOnePacksAndTheOthersWait) {
  const std::string path = model("a");
  for (int round = 0; round < 5; ++round) {
    std::array<ino_t, 6> used{};
    std::vector<PackedWeights> kept(used.size());
    const auto said = warnings([&] {
      std::vector<std::jthread> threads;
      for (size_t i = 0; i < used.size(); ++i)
        threads.emplace_back([&, i] {
          kept[i] = find_or_pack(path);
          used[i] = inode(kept[i]);
        });
    });
    EXPECT_TRUE(said.empty()) << said.front();
    EXPECT_EQ(files(), std::vector{cached(path)});
    for (const ino_t one : used) EXPECT_EQ(one, inode(cached(path)));
    fs::remove(cached(path));
  }
}

// Another process that packs, as far as one can see.
class OtherPacker {
 public:
  explicit OtherPacker(const std::string& path) : path_(path) {
    fs::create_directories(fs::path(path).parent_path());
    file_ = UniqueFd(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    CHECK(file_ && ::flock(file_.get(), LOCK_EX) == 0);
    progress(1);
  }
  void progress(uint64_t bytes) const {
    CHECK(::pwrite(file_.get(), &bytes, sizeof bytes, kProgressOffset) == sizeof bytes);
  }
  void is_killed() { file_ = UniqueFd(); }

 private:
  const std::string path_;
  UniqueFd file_;
};

TEST_F(WeightsCacheTest, APackerThatGetsNoFurtherIsNotWaitedFor) {
  const std::string path = model("a");
  cache_.stall_max = std::chrono::milliseconds(100);
  const OtherPacker other(temporary(path));
  const auto said = warnings([&] {
    const PackedWeights packed = find_or_pack(path);
    expect_right(packed, path);
    EXPECT_FALSE(in_cache(packed, path));
  });
  expect_one(said, {"packed in memory", "another process", "--cache-dir"});
  EXPECT_TRUE(fs::exists(temporary(path)));  // it keeps its own
}

TEST_F(WeightsCacheTest, APackerThatGoesOnIsWaitedForAndADeadOneReplaced) {
  const std::string path = model("a");
  cache_.stall_max = std::chrono::seconds(3);
  OtherPacker other(temporary(path));
  std::jthread packs([&] {
    for (uint64_t step = 2; step < 8; ++step) {
      ::poll(nullptr, 0, 600);  // together longer than stall_max
      other.progress(step);
    }
    other.is_killed();
  });
  const auto said = warnings([&] {
    const TimePoint start = steady_now();
    const PackedWeights packed = find_or_pack(path);
    EXPECT_GT(seconds(steady_now() - start), 3.3);
    EXPECT_TRUE(in_cache(packed, path));
    expect_right(packed, path);
  });
  EXPECT_TRUE(said.empty()) << said.front();
  EXPECT_EQ(files(), std::vector{cached(path)});
}

TEST_F(WeightsCacheTest, AFolderThatCannotBeUsedIsBypassedWithOneWarning) {
  const std::string path = model("a");
  write(folder_ + "/file", "x");
  for (const std::string& bad : {folder_ + "/file", folder_ + "/file/below", std::string("/proc/none")}) {
    cache_.folder = bad;
    const auto said = warnings([&] { expect_right(find_or_pack(path), path); });
    expect_one(said, {"packed in memory", bad, "--cache-dir"});
  }
}

TEST_F(WeightsCacheTest, WhatWasNotUsedForLongestMakesRoomUnlessItIsInUse) {
  const std::string a = model("a", 1), b = model("b", 2), c = model("c", 3), d = model("d", 4);
  write(folder_ + "/cache.txt", "");
  (void)find_or_pack(a);
  (void)find_or_pack(b);
  write(cache_.folder + "/notes.txt", std::string(1 << 20, 'x'));  // not ours: neither counted nor removed
  const uint64_t each = WeightsFolder(cache_.folder).files()[0].bytes;
  cache_.bytes_max = 2 * each + each / 2;
  age(cached(a), 3);
  age(cached(b), 2);
  (void)find_or_pack(a);  // used now
  (void)find_or_pack(c);
  EXPECT_TRUE(fs::exists(cached(a)));
  EXPECT_FALSE(fs::exists(cached(b)));
  {
    const PackedWeights used = find_or_pack(a);
    age(cached(a), 5);
    (void)find_or_pack(d);
    EXPECT_TRUE(fs::exists(cached(a)));
    EXPECT_FALSE(fs::exists(cached(c)));
    const PackedWeights also_used = find_or_pack(d);
    const auto said = warnings([&] { expect_right(find_or_pack(b), b); });
    expect_one(said, {"packed in memory", "--cache-max-bytes is " + std::to_string(cache_.bytes_max)});
  }
  EXPECT_TRUE(fs::exists(cache_.folder + "/notes.txt"));
  cache_.bytes_max = each / 2;
  const auto said = warnings([&] { expect_right(find_or_pack(b), b); });
  expect_one(said, {"--cache-max-bytes"});
  EXPECT_EQ(files().size(), 3u);  // nothing removed for what could not fit anyway
}

TEST_F(WeightsCacheTest, WhatNobodyWillAskForIsRemovedByTheNextWriter) {
  const std::string path = model("a"), other = model("b", 2);
  (void)find_or_pack(other);
  const std::string old_layout = cache_.folder + "/0123456789abcdef0123456789abcdef.cpu-bf16-panels-1";
  const std::string old_packing = cache_.folder + "/1-2-3-4.cpu-panels-0.packed2";
  const std::string other_packing = cache_.folder + "/1-2-3-4.cpu-bf16-panels-0.packed2";
  const std::string later_layout = cache_.folder + "/1-2-3-4.cpu-panels-1.packed3";
  for (const std::string& file : {old_layout, old_packing, other_packing, later_layout}) write(file, "x");
  (void)find_or_pack(path);
  EXPECT_FALSE(fs::exists(old_layout));
  EXPECT_FALSE(fs::exists(old_packing));
  EXPECT_TRUE(fs::exists(other_packing));
  EXPECT_TRUE(fs::exists(later_layout));
  EXPECT_TRUE(fs::exists(cached(other)));
}

TEST_F(WeightsCacheTest, WhatIsRemovedStaysWithWhoMapsIt) {
  const std::string path = model("a");
  const PackedWeights packed = find_or_pack(path);
  fs::remove_all(cache_.folder);
  expect_right(packed, path);
  EXPECT_TRUE(packed.intact());
}

}  // namespace
}  // namespace spillway
