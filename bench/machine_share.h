#pragma once

#include <benchmark/benchmark.h>

#include "kernels/cpu/machine_peak.h"

namespace spillway {

// The machine's limits, measured once per run and thread count, before the first figure that is set against them.
inline const MachinePeak& machine_peak(uint32_t threads) {
  static const MachinePeak one = measure_machine_peak(1), two = measure_machine_peak(2);
  return threads == 1 ? one : two;
}

// Adds what an iteration did and its share of the machine's peak with as many threads. flops: counted against
// vdpbf16ps.
inline void report_share(benchmark::State& state, uint32_t threads, double flops, double bytes) {
  const MachinePeak& peak = machine_peak(threads);
  const double best_flops = peak.bf16_flops_per_s > 0 ? peak.bf16_flops_per_s : peak.f32_flops_per_s;
  const auto runs = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["flop/s"] = Counter(flops * runs, Counter::kIsRate);
  state.counters["B/s"] = Counter(bytes * runs, Counter::kIsRate);
  state.counters["peak_flop/s"] = best_flops;
  state.counters["peak_B/s"] = peak.read_bytes_per_s;
  state.counters["share_flop"] = Counter(flops * runs / best_flops, Counter::kIsRate);
  state.counters["share_B"] = Counter(bytes * runs / peak.read_bytes_per_s, Counter::kIsRate);
}

}  // namespace spillway
