#include "model/weights_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>
#include <utility>

#include "common/leftover_files.h"
#include "common/log.h"

namespace spillway {
namespace {

constexpr int kAttempts = 8;  // at a lock that others take and leave at the same moment
constexpr Duration kLookEvery = std::chrono::seconds(1);

// The one file into which a key is packed: its lock is the right to pack, and remove_leftover_files() knows its name.
std::string temporary_of(const std::string& path) {
  std::string name = path + std::string(kUnfinishedSuffix);
  return name.replace(name.size() - 6, 6, "packer");
}

Error no_space(const std::string& path, int cause) {
  return {ErrorCode::kNoSpace, fmt::format("cannot write {}: {}", path, std::strerror(cause))};
}

// Wakes when a writer in the folder renames, removes or closes its file: also when it is killed.
class FolderWatch {
 public:
  explicit FolderWatch(const std::string& folder) : watch_(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK)) {
    if (watch_) ::inotify_add_watch(watch_.get(), folder.c_str(), IN_MOVED_TO | IN_DELETE | IN_CLOSE_WRITE);
  }
  void wait(Duration at_most) const {
    pollfd entry{watch_.get(), POLLIN, 0};  // without a watch: only the time
    ::poll(&entry, 1, static_cast<int>(milliseconds(at_most)));
    std::array<char, 4096> events{};
    while (watch_ && ::read(watch_.get(), events.data(), events.size()) > 0) {
    }
  }

 private:
  const UniqueFd watch_;
};

// Follows another process that packs.
class Waiting {
 public:
  Waiting(const std::string& folder, Duration stall_max) : watch_(folder), stall_max_(stall_max) {}

  // Until something happens, at most kLookEvery. kDeadline: it got no further for stall_max.
  Result<void> wait(const std::string& temporary, uint64_t bytes) {
    const TimePoint now = steady_now();
    uint64_t done = 0;
    const UniqueFd file(::open(temporary.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    if (file && ::pread(file.get(), &done, sizeof done, kProgressOffset) != sizeof done) done = 0;
    if (done != done_ || begun_ == TimePoint{}) stalls_at_ = now + stall_max_;
    if (begun_ == TimePoint{}) begun_ = say_at_ = now;
    done_ = done;
    if (now >= stalls_at_)
      return fail(ErrorCode::kDeadline, fmt::format("another process packs {} and got no further for {:.0f} s",
                                                    temporary, seconds(stall_max_)));
    if (now >= say_at_) {
      spdlog::info("waiting for another process that packs these weights: {:.0f} % of {:.0f} MiB after {:.0f} s",
                   100 * static_cast<double>(done) / static_cast<double>(bytes), static_cast<double>(bytes) / (1 << 20),
                   seconds(now - begun_));
      say_at_ = now + kLookEvery;
    }
    watch_.wait(std::min({kLookEvery, stalls_at_ - now, say_at_ - now}) + std::chrono::milliseconds(1));
    return {};
  }

 private:
  const FolderWatch watch_;
  const Duration stall_max_;
  TimePoint begun_{}, say_at_{}, stalls_at_{};
  uint64_t done_ = 0;
};

class CachedPacking {
 public:
  CachedPacking(const WeightsCacheConfig& config, WeightPacker& packer)
      : config_(config),
        packer_(packer),
        key_(*packer.key()),
        folder_(config.folder),
        path_(folder_.path_of(key_)),
        temporary_(temporary_of(path_)) {}

  Result<PackedWeights> find_or_pack() {
    std::optional<Waiting> waiting;
    bool warned = false;
    for (int attempt = 0; attempt < kAttempts;) {
      Result<PackedWeights> found = folder_.open(key_);
      if (found || found.error().code == ErrorCode::kUnavailable) return found;
      const bool damaged = found.error().code == ErrorCode::kCorrupt;
      if (damaged && !std::exchange(warned, true)) spdlog::warn("not used, packed again: {}", found.error().detail);
      std::error_code error;
      std::filesystem::create_directories(config_.folder, error);
      if (error) return fail(ErrorCode::kNoSpace, fmt::format("cannot make {}: {}", config_.folder, error.message()));
      Result<UniqueFd> mine = claim();
      if (!mine) return tl::unexpected<Error>(std::move(mine.error()));
      if (*mine) {
        ++attempt;
        if (damaged || ::access(path_.c_str(), F_OK) != 0) return pack(std::move(*mine));
        ::unlink(temporary_.c_str());  // another process has finished it meanwhile
        continue;
      }
      if (!waiting) waiting.emplace(config_.folder, config_.stall_max);
      if (Result<void> waited = waiting->wait(temporary_, packer_.bytes()); !waited)
        return tl::unexpected<Error>(std::move(waited.error()));
    }
    return fail(ErrorCode::kUnavailable, fmt::format("others replace {} all the time", path_));
  }

 private:
  // The temporary file, empty, locked and open for reading; nothing while another process packs. (Who only waits must
  // not close a file that it could write: that would wake all who wait.)
  Result<UniqueFd> claim() const {
    remove_leftover_files(path_);
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      UniqueFd file(::open(temporary_.c_str(), O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644));
      if (!file) return tl::unexpected<Error>(no_space(temporary_, errno));
      if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
        if (errno == EWOULDBLOCK) return UniqueFd();
        return tl::unexpected<Error>(no_space(temporary_, errno));
      }
      struct stat facts {};
      if (::fstat(file.get(), &facts) != 0) return tl::unexpected<Error>(no_space(temporary_, errno));
      if (facts.st_nlink > 0 && facts.st_size == 0) return file;
      if (facts.st_nlink > 0) ::unlink(temporary_.c_str());  // its writer was killed a moment ago
    }
    return UniqueFd();
  }

  Result<PackedWeights> pack(UniqueFd mine) const {
    const UniqueFd file(::open(temporary_.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW));
    Result<void> written = file ? fill(file.get()) : tl::unexpected<Error>(no_space(temporary_, errno));
    // Its readers check the digests: no fsync() for a file that a power cut may leave empty.
    if (written && ::rename(temporary_.c_str(), path_.c_str()) != 0) written = tl::unexpected(no_space(path_, errno));
    if (!written) {
      ::unlink(temporary_.c_str());
      return tl::unexpected<Error>(std::move(written.error()));
    }
    ::flock(mine.get(), LOCK_SH);  // from here on it is used, not written
    return PackedWeights::map(std::move(mine), path_, key_);
  }

  Result<void> fill(int file) const {
    const uint64_t bytes = packer_.bytes();
    if (Result<void> room = folder_.make_room(key_, bytes, config_.bytes_max); !room) return room;
    rlimit limit{};  // past it a write is a signal, not an error
    if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes > limit.rlim_cur)
      return tl::unexpected<Error>(no_space(temporary_, EFBIG));
    if (const int error = ::posix_fallocate(file, 0, static_cast<off_t>(bytes)); error != 0)
      return tl::unexpected<Error>(no_space(temporary_, error));
    return packer_.pack(file, path_);
  }

  const WeightsCacheConfig& config_;
  WeightPacker& packer_;
  const PackedKey key_;
  const WeightsFolder folder_;
  const std::string path_, temporary_;
};

}  // namespace

PackedWeights find_or_pack_weights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                                   const WeightsCacheConfig& cache) {
  WeightPacker packer(file, config, backend);
  if (cache.folder.empty() || !packer.key()) return packer.pack_in_memory();
  Result<PackedWeights> cached = CachedPacking(cache, packer).find_or_pack();
  if (cached) return std::move(*cached);
  spdlog::warn(
      "weights are packed in memory, for this start only: {}; make room there or make it writable, name another folder "
      "with --cache-dir, or say --cache-dir none",
      cached.error().detail);
  return packer.pack_in_memory();
}

}  // namespace spillway
