#pragma once

#include <cstdint>
#include <filesystem>

namespace spillway {

// Threads that can run at once: the cores this process may be scheduled on (sched_setaffinity(2)), or fewer where a
// control group (v2) that it is in has a smaller quota (cpu.max), rounded up. At least 1. `root` is where /proc and
// /sys are found.
uint32_t available_cores(const std::filesystem::path& root = "/");

}  // namespace spillway
