#pragma once

#include <cstdint>
#include <filesystem>

#include "common/cpu_list.h"

namespace spillway {

// Threads that can run at once: the cores this process may be scheduled on (sched_setaffinity(2)), or fewer where a
// control group that it is in has a smaller quota (v2 cpu.max, v1 cpu.cfs_quota_us), rounded up. At least 1. `root` is
// where /proc and /sys are found.
uint32_t available_cores(const std::filesystem::path& root = "/");

// `cpus` from `first` on, around: one of each core, then those that share a core with one of these. All as they are
// where /sys does not tell.
CpuList cores_first(CpuList cpus, uint32_t first, const std::filesystem::path& root = "/");

}  // namespace spillway
