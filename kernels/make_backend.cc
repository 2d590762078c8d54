#include "kernels/make_backend.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <sched.h>

#include <algorithm>

#include "common/check.h"
#include "kernels/cpu/cpu_backend.h"

namespace spillway {
namespace {

// Cores that this process may run on, which containers and taskset limit (sched_getaffinity(2)).
uint32_t usable_cores() {
  cpu_set_t cores;
  if (::sched_getaffinity(0, sizeof cores, &cores) != 0) return 1;
  return static_cast<uint32_t>(std::max(1, CPU_COUNT(&cores)));
}

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendConfig& config) {
  const std::span<const cpu::IsaLevel> levels = cpu::available_levels();
  const auto chosen =
      std::find_if(levels.begin(), levels.end(), [&](const cpu::IsaLevel& level) { return level.name == config.isa; });
  if (config.isa != "auto" && chosen == levels.end()) {
    throw SetupError(
        fmt::format("--isa {}: this machine has {} (or auto)", config.isa, fmt::join(available_isa_levels(), ", ")));
  }
  constexpr uint32_t kMax = cpu::WorkerPool::kThreadsMax;
  if (config.threads > kMax) {
    throw SetupError(fmt::format("--threads {}: at most {} are supported", config.threads, kMax));
  }
  const uint32_t threads = config.threads > 0 ? config.threads : std::min(usable_cores(), kMax);
  return std::make_unique<cpu::CpuBackend>(config.isa == "auto" ? levels.back() : *chosen, threads);
}

std::vector<std::string> available_isa_levels() {
  std::vector<std::string> names;
  for (const cpu::IsaLevel& level : cpu::available_levels()) names.emplace_back(level.name);
  return names;
}

}  // namespace spillway
