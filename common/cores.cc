#include "common/cores.h"

#include <algorithm>
#include <fstream>
#include <string>

#include "common/control_groups.h"

namespace spillway {
namespace {

uint64_t cores_of(uint64_t quota, uint64_t period) {
  return std::max<uint64_t>(1, quota / period + (quota % period != 0));
}

// cpu.max is "QUOTA PERIOD" or "max PERIOD", in microseconds.
uint64_t cores_of_v2(const std::filesystem::path& folder, uint64_t at_most) {
  std::ifstream file(folder / "cpu.max");
  uint64_t quota = 0, period = 0;
  return file >> quota >> period && period > 0 ? std::min(at_most, cores_of(quota, period)) : at_most;
}

// A file each, in microseconds; a quota of -1 is none.
uint64_t cores_of_v1(const std::filesystem::path& folder, uint64_t at_most) {
  std::ifstream quota_file(folder / "cpu.cfs_quota_us"), period_file(folder / "cpu.cfs_period_us");
  int64_t quota = 0, period = 0;
  const bool limited = quota_file >> quota && period_file >> period && quota > 0 && period > 0;
  return limited ? std::min(at_most, cores_of(static_cast<uint64_t>(quota), static_cast<uint64_t>(period))) : at_most;
}

}  // namespace

uint32_t available_cores(const std::filesystem::path& root) {
  // std::thread::hardware_concurrency() counts those of the machine in older C libraries (glibc 2.36).
  uint64_t cores = std::max<size_t>(1, allowed_cpus().size());
  const ControlGroups groups = control_groups(root, "cpu");
  for (const std::filesystem::path& folder : groups.v2) cores = cores_of_v2(folder, cores);
  for (const std::filesystem::path& folder : groups.v1) cores = cores_of_v1(folder, cores);
  return static_cast<uint32_t>(cores);
}

CpuList cores_first(CpuList cpus, uint32_t first, const std::filesystem::path& root) {
  std::ranges::rotate(cpus, std::ranges::find(cpus, first));
  CpuList own, shared, siblings;  // siblings: of `own`
  for (const uint32_t cpu : cpus) {
    if (std::ranges::find(siblings, cpu) != siblings.end()) {
      shared.push_back(cpu);
      continue;
    }
    own.push_back(cpu);
    std::ifstream file(root / "sys/devices/system/cpu" / ("cpu" + std::to_string(cpu)) /
                       "topology/thread_siblings_list");
    std::string text;
    std::getline(file, text);
    if (const auto same_core = parse_cpu_list(text))
      siblings.insert(siblings.end(), same_core->begin(), same_core->end());
  }
  own.insert(own.end(), shared.begin(), shared.end());
  return own;
}

}  // namespace spillway
