#include "cli/bench_command.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "cli/bench_engine.h"
#include "cli/bench_report.h"
#include "cli/precision.h"
#include "kernels/cpu/machine_peak.h"

namespace spillway {
namespace {

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

}  // namespace

int bench_command(const Options& options) {
  const std::vector<BenchCase> cases = bench_cases(options);
  const ModelFile file(options.model);
  LocalModel model(file, bench_limits(cases, file.config(), options));
  BenchMachine machine{.cpu = cpu_name(),
                       .backend = std::string(model.backend().name()),
                       .threads = model.backend().threads(),
                       .step_threads = model.decoder().step_threads().text()};
  fmt::print(stderr, "measuring the machine\n");
  const MachinePeak peak = measure_machine_peak(machine.threads);
  machine.flops_per_second =
      peak.multiply_add_per_s(activations_of_products(model.weights(), precision_of(options).activations));
  machine.memory_bytes_per_second = peak.read_bytes_per_s;
  machine.weights_bytes_per_second = measure_read_bandwidth(machine.threads, model.weights().packed_bytes());
  fmt::print("{}", format_bench(options.format, bench_engine(model, cases, options.repetitions), machine));
  return 0;
}

}  // namespace spillway
