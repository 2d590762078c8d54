#pragma once

#include <cstdint>
#include <filesystem>

#include "common/cpu_list.h"

namespace spillway {

// Threads that can run at once: the cores this process may be scheduled on (sched_setaffinity(2)), or fewer where a
// control group that it is in has a smaller quota (v2 cpu.max, v1 cpu.cfs_quota_us), rounded up. At least 1. `root` is
// where /proc and /sys are found.
uint32_t available_cores(const std::filesystem::path& root = "/");

// `cpus`, one of each core first, then those that share a core with one of these; where /sys does not tell, as they
// are.
CpuList cores_first(CpuList cpus, const std::filesystem::path& root = "/");

}  // namespace spillway
