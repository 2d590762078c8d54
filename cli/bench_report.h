#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/bench_engine.h"

namespace spillway {

// What the lines of `bench` stand beside, measured in the same run.
struct BenchMachine {
  std::string cpu, backend;
  uint32_t threads = 0;                 // of the machine's limits
  std::string step_threads;             // of ours
  double flops_per_second = 0;          // multiply-add peak of the type that the kernels multiply
  double memory_bytes_per_second = 0;   // reading beyond all caches
  double weights_bytes_per_second = 0;  // reading as many bytes as the weights have: the last cache may hold a part
};

// `format` is one of kBenchFormats: a table for people, JSON with everything, CSV with a header and a line a case.
inline constexpr const char* kBenchFormats[] = {"table", "json", "csv"};
std::string format_bench(const std::string& format, const std::vector<BenchLine>& lines, const BenchMachine& machine);

}  // namespace spillway
