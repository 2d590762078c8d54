#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <optional>

#include "common/leftover_files.h"
#include "common/log.h"
#include "model/weights_cache.h"

namespace spillway {
namespace {

constexpr uint64_t kBlockBytes = 512;  // of st_blocks

// "cpu-panels-1" is older than "cpu-panels-2"; other names say nothing about each other.
bool is_older_packing(std::string_view one, std::string_view than) {
  const auto parts = [](std::string_view name) {
    const size_t dash = name.rfind('-');
    return dash == name.npos ? std::pair(name, std::string_view()) : std::pair(name.substr(0, dash), name.substr(dash));
  };
  const auto [stem, revision] = parts(one);
  const auto [other_stem, other_revision] = parts(than);
  return stem == other_stem && std::pair(revision.size(), revision) < std::pair(other_revision.size(), other_revision);
}

bool is_outdated(const PackedFileName& name, const PackedFileName& writing) {
  if (name.layout != kPackedLayout) return name.layout < kPackedLayout;
  const bool earlier_state = name.model == writing.model && name.state != writing.state;
  return earlier_state || is_older_packing(name.pack_format, writing.pack_format);
}

// Not while anybody uses it.
bool remove_unused(const std::string& path) {
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  return file && ::flock(file.get(), LOCK_EX | LOCK_NB) == 0 && ::unlink(path.c_str()) == 0;
}

}  // namespace

std::vector<WeightsFolder::File> WeightsFolder::files() const {
  std::vector<File> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path_, error)) {
    std::optional<PackedFileName> parts = read_packed_file_name(entry.path().filename().string());
    struct stat facts {};
    if (!parts || ::lstat(entry.path().c_str(), &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_uid != ::geteuid())
      continue;
    found.push_back({entry.path().string(), std::move(*parts), static_cast<uint64_t>(facts.st_blocks) * kBlockBytes,
                     int64_t{facts.st_atim.tv_sec} * 1'000'000'000 + facts.st_atim.tv_nsec});
  }
  std::ranges::sort(found, {}, &File::last_use_ns);
  return found;
}

Result<void> WeightsFolder::make_room(const PackedKey& writing, uint64_t needed, uint64_t bytes_max) const {
  const std::string new_path = path_of(writing);
  const PackedFileName new_name = *read_packed_file_name(writing.file_name());
  std::vector<File> others = files();
  std::erase_if(others, [&](const File& file) { return file.path == new_path; });  // it will be replaced
  uint64_t sum = 0;
  for (const File& file : others) sum += file.bytes;
  const auto remove = [&](const File& file, const char* why) {
    if (!remove_unused(file.path)) return false;
    sum -= file.bytes;
    spdlog::info("removed packed weights {}: {}", file.path, why);
    return true;
  };
  std::erase_if(others, [&](const File& file) {
    return is_outdated(file.name, new_name) && remove(file, "nobody will ask for them again");
  });
  const auto fits = [&] { return needed <= bytes_max && sum <= bytes_max - needed; };
  if (needed <= bytes_max)
    for (const File& file : others)
      if (!fits()) remove(file, "used less lately than others, and --cache-max-bytes is reached");
  if (fits()) return {};
  return fail(ErrorCode::kNoSpace, fmt::format("{} need {} bytes, others in use have {}, --cache-max-bytes is {}",
                                               new_path, needed, sum, bytes_max));
}

Result<PackedWeights> WeightsFolder::open(const PackedKey& key) const {
  const std::string path = path_of(key);
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file)
    return fail(errno == ENOENT ? ErrorCode::kInvalidArgument : ErrorCode::kUnavailable,
                fmt::format("cannot open {}: {}", path, std::strerror(errno)));
  // Who removes it locks it for a moment only. Where there are no locks it may be removed while it is in use, which
  // hurts nobody.
  ::flock(file.get(), LOCK_SH | LOCK_NB);
  const timespec times[] = {{0, UTIME_NOW}, {0, UTIME_OMIT}};
  ::futimens(file.get(), times);  // not where others own it
  Result<PackedWeights> mapped = PackedWeights::map(std::move(file), path, key);
  if (!mapped) return mapped;
  if (const Result<void> intact = mapped->intact(); !intact)
    return fail(intact.error().code, fmt::format("{}: {}", path, intact.error().detail));
  return mapped;
}

std::vector<std::string> WeightsFolder::leftovers(const PackedKey& key) const { return leftover_files(path_of(key)); }

}  // namespace spillway
