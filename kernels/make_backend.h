#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace spillway {

struct BackendConfig {
  std::string isa = "auto";  // auto, scalar, avx512bf16
  uint32_t threads = 0;      // 0: one per core this process may run on
};

// Throws SetupError naming the levels this machine has when `isa` is none of them.
std::unique_ptr<Backend> make_backend(const BackendConfig& config);

// Levels that this machine can run, slowest first ("scalar", "avx512bf16").
std::vector<std::string> available_isa_levels();

}  // namespace spillway
