#include "kernels/make_backend.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "common/check.h"
#include "common/cores.h"
#include "kernels/cpu/cpu_backend.h"

namespace spillway {
namespace {

static_assert(kBackendThreadsMax == cpu::WorkerPool::kThreadsMax);

}  // namespace

std::unique_ptr<Backend> make_backend(const BackendConfig& config) {
  const std::span<const cpu::IsaLevel> levels = cpu::available_levels(config.precision);
  const auto chosen =
      std::find_if(levels.begin(), levels.end(), [&](const cpu::IsaLevel& level) { return level.name == config.isa; });
  if (config.isa != "auto" && chosen == levels.end()) {
    throw SetupError(fmt::format("--isa {}: this machine has {} (or auto){}", config.isa,
                                 fmt::join(available_isa_levels(config.precision), ", "),
                                 config.precision.activations == Activations::kInt8
                                     ? "; --activations int8 needs VNNI for AVX-512"
                                     : ""));
  }
  if (config.threads > kBackendThreadsMax)
    throw SetupError(fmt::format("--threads {}: at most {} are supported", config.threads, kBackendThreadsMax));
  const uint32_t threads = config.threads > 0 ? config.threads : std::min(available_cores(), kBackendThreadsMax);
  return std::make_unique<cpu::CpuBackend>(config.isa == "auto" ? levels.back() : *chosen, config.precision, threads,
                                           config.cpus);
}

std::vector<std::string> available_isa_levels(const Precision& precision) {
  std::vector<std::string> names;
  for (const cpu::IsaLevel& level : cpu::available_levels(precision)) names.emplace_back(level.name);
  return names;
}

}  // namespace spillway
