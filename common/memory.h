#pragma once

#include <cstdint>
#include <filesystem>

namespace spillway {

// What this process can take without swapping: MemAvailable of /proc/meminfo (proc(5)), or less where a control group
// (v1 or v2) that it is in has less left of its limit; page cache that the group can drop counts as left. No limit (the
// largest value) where nothing says. `root` is where /proc and /sys are found.
uint64_t available_memory_bytes(const std::filesystem::path& root = "/");

}  // namespace spillway
