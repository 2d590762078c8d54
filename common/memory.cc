#include "common/memory.h"

#include <fstream>
#include <limits>
#include <string>

namespace spillway {

uint64_t available_memory_bytes() {
  std::ifstream file("/proc/meminfo");
  std::string key, rest;
  for (uint64_t kib = 0; file >> key >> kib; std::getline(file, rest))
    if (key == "MemAvailable:") return kib * 1024;
  return std::numeric_limits<uint64_t>::max();
}

}  // namespace spillway
