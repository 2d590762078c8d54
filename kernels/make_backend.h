#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/cpu_list.h"
#include "kernels/backend.h"
#include "kernels/numerics.h"

namespace spillway {

inline constexpr uint32_t kBackendThreadsMax = 256;

// That a backend holds at most to bring activations into the form its products take.
inline constexpr size_t kActivationScratchBytes = size_t{4} << 20;

struct BackendConfig {
  std::string isa = "auto";  // auto, scalar, avx2, avx512bf16
  uint32_t threads = 0;      // 0: one per core (available_cores())
  CpuList cpus{};            // as many as threads: each runs on one of them; else ignored
  Precision precision{};
};

// Throws SetupError naming the levels this machine has with this precision when `isa` is none of them, and where a
// thread cannot be had.
std::unique_ptr<Backend> make_backend(const BackendConfig& config);

// Levels that this machine can run with this precision, slowest first ("scalar", "avx2", "avx512bf16").
std::vector<std::string> available_isa_levels(const Precision& precision = {});

}  // namespace spillway
