#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/local_model.h"
#include "cli/options.h"

namespace spillway {

// One line of `bench`: tokens per second over repetitions, and what of the machine's limit that is.
struct BenchLine {
  std::string name;                                   // "pp512", "tg128"
  uint32_t batch = 0;                                 // sequences served at once; tokens of all are counted
  std::vector<double> tokens_per_second;              // one per repetition, ascending
  double flops_per_second = 0, bytes_per_second = 0;  // of the median repetition, from the operations' own counters
  double median() const;
};
// Prompts of 512 tokens, and 128 tokens generated one by one, at batch 1 and 8, through Engine and Executor; each line
// once unmeasured first. Progress on stderr. REQUIRES model.limits() from bench_limits().
std::vector<BenchLine> bench_engine(LocalModel& model, uint32_t repetitions);
LocalModel::Limits bench_limits(const ModelConfig& config, const Options& options);

// `spillway bench`: bench_engine beside the machine's multiply-add peak and read bandwidth, measured in the same run,
// as a table or JSON. Returns the exit code; throws SetupError.
int bench_command(const Options& options);

}  // namespace spillway
