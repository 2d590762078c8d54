#include "common/cores.h"

#include <algorithm>
#include <fstream>
#include <string>
#include <thread>

namespace spillway {
namespace {

// cpu.max is "QUOTA PERIOD" or "max PERIOD", in microseconds.
uint64_t cores_of_group(const std::filesystem::path& folder, uint64_t at_most) {
  std::ifstream file(folder / "cpu.max");
  uint64_t quota = 0, period = 0;
  if (!(file >> quota >> period) || period == 0) return at_most;
  return std::min(at_most, std::max<uint64_t>(1, quota / period + (quota % period != 0)));
}

}  // namespace

uint32_t available_cores(const std::filesystem::path& root) {
  uint64_t cores = std::max(1u, std::thread::hardware_concurrency());
  std::ifstream groups(root / "proc/self/cgroup");
  for (std::string line; std::getline(groups, line);) {
    if (!line.starts_with("0::")) continue;  // v2 (cgroups(7))
    std::filesystem::path folder = root / "sys/fs/cgroup";
    cores = cores_of_group(folder, cores);
    for (const std::filesystem::path& name : std::filesystem::path(line.substr(3)).relative_path())
      cores = cores_of_group(folder /= name, cores);
  }
  return static_cast<uint32_t>(cores);
}

}  // namespace spillway
