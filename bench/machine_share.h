#pragma once

#include <benchmark/benchmark.h>

#include <string>
#include <vector>

#include "kernels/cpu/machine_peak.h"
#include "kernels/make_backend.h"

namespace spillway {

// The machine's limits, measured once per run and thread count, before the first figure that is set against them.
inline const MachinePeak& machine_peak(uint32_t threads) {
  static const MachinePeak one = measure_machine_peak(1), two = measure_machine_peak(2);
  return threads == 1 ? one : two;
}

// Adds what an iteration did and its share of the machine's peak with as many threads, for products of such
// activations.
inline void report_share(benchmark::State& state, uint32_t threads, double flops, double bytes,
                         Activations activations = Activations::kBf16) {
  const MachinePeak& peak = machine_peak(threads);
  const double best_flops = peak.multiply_add_per_s(activations);
  const auto runs = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["flop/s"] = Counter(flops * runs, Counter::kIsRate);
  state.counters["B/s"] = Counter(bytes * runs, Counter::kIsRate);
  state.counters["peak_flop/s"] = best_flops;
  state.counters["peak_B/s"] = peak.read_bytes_per_s;
  state.counters["share_flop"] = Counter(flops * runs / best_flops, Counter::kIsRate);
  state.counters["share_B"] = Counter(bytes * runs / peak.read_bytes_per_s, Counter::kIsRate);
}

// Registers "name/level", body(state, level) for each ISA level of this machine but scalar (it is slow), unless that is
// the only one. `arguments` sets the arguments.
template <class Body, class Arguments>
int for_each_fast_level(const std::string& name, const Body& body, const Arguments& arguments) {
  const std::vector<std::string> levels = available_isa_levels();
  for (size_t i = levels.size() > 1 ? 1 : 0; i < levels.size(); ++i) {
    arguments(benchmark::RegisterBenchmark((name + "/" + levels[i]).c_str(),
                                           [body, level = levels[i]](benchmark::State& state) { body(state, level); }));
  }
  return static_cast<int>(levels.size());
}

}  // namespace spillway
