#include "common/memory.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

namespace spillway {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

struct GroupFiles {
  const char *mount, *limit, *usage;
  std::array<const char*, 2> droppable;  // keys of memory.stat
};
constexpr GroupFiles kV2{"sys/fs/cgroup", "memory.max", "memory.current", {"inactive_file", "active_file"}};
constexpr GroupFiles kV1{"sys/fs/cgroup/memory",
                         "memory.limit_in_bytes",
                         "memory.usage_in_bytes",
                         {"total_inactive_file", "total_active_file"}};

std::optional<uint64_t> read_number(const std::filesystem::path& path) {
  std::ifstream file(path);
  uint64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;  // not there, or "max"
}

// The value after `wanted` in a file of lines "key value ...".
std::optional<uint64_t> read_key(const std::filesystem::path& path, const std::string& wanted) {
  std::ifstream file(path);
  std::string key, rest;
  for (uint64_t value = 0; file >> key >> value; std::getline(file, rest))
    if (key == wanted) return value;
  return std::nullopt;
}

uint64_t left_in_group(const std::filesystem::path& folder, const GroupFiles& files) {
  const std::optional<uint64_t> limit = read_number(folder / files.limit);
  const std::optional<uint64_t> usage = read_number(folder / files.usage);
  if (!limit || !usage) return kNoLimit;
  uint64_t held = *usage;
  for (const char* const key : files.droppable)
    held -= std::min(held, read_key(folder / "memory.stat", key).value_or(0));
  return *limit - std::min(*limit, held);
}

// Of the group and all above it. A group that this mount does not show (a container's) is the mount itself.
uint64_t left_in_groups(const std::filesystem::path& root, const GroupFiles& files, const std::string& group) {
  uint64_t left = left_in_group(root / files.mount, files);
  std::filesystem::path folder = root / files.mount;
  for (const std::filesystem::path& name : std::filesystem::path(group).relative_path())
    left = std::min(left, left_in_group(folder /= name, files));
  return left;
}

}  // namespace

uint64_t available_memory_bytes(const std::filesystem::path& root) {
  uint64_t available = kNoLimit;
  if (const auto kib = read_key(root / "proc/meminfo", "MemAvailable:")) available = *kib * 1024;
  std::ifstream groups(root / "proc/self/cgroup");  // lines "id:controllers:path" (cgroups(7)); v2 has no controllers
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first, second - first + 1);  // ":cpu,memory:"
    const std::string group = line.substr(second + 1);
    if (controllers == "::") available = std::min(available, left_in_groups(root, kV2, group));
    if (controllers.find("memory") != std::string::npos)
      available = std::min(available, left_in_groups(root, kV1, group));
  }
  return available;
}

}  // namespace spillway
