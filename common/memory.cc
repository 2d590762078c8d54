#include "common/memory.h"

#include <algorithm>
#include <array>
#include <fstream>
#include <limits>
#include <optional>
#include <string>

#include "common/control_groups.h"

namespace spillway {
namespace {

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

struct GroupFiles {
  const char *limit, *usage;
  std::array<const char*, 2> droppable;  // keys of memory.stat
};
constexpr GroupFiles kV2{"memory.max", "memory.current", {"inactive_file", "active_file"}};
constexpr GroupFiles kV1{
    "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};

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

}  // namespace

uint64_t available_memory_bytes(const std::filesystem::path& root) {
  uint64_t available = kNoLimit;
  if (const auto kib = read_key(root / "proc/meminfo", "MemAvailable:")) available = *kib * 1024;
  const ControlGroups groups = control_groups(root, "memory");
  for (const std::filesystem::path& folder : groups.v2) available = std::min(available, left_in_group(folder, kV2));
  for (const std::filesystem::path& folder : groups.v1) available = std::min(available, left_in_group(folder, kV1));
  return available;
}

}  // namespace spillway
