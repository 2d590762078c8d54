#pragma once

#include <cstdint>

namespace spillway {

// What the kernel believes it can give without swapping: MemAvailable of /proc/meminfo (proc(5)). No limit (the largest
// value) where it does not say.
uint64_t available_memory_bytes();

}  // namespace spillway
