#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/local_model.h"
#include "cli/options.h"

namespace spillway {

// What one line of `bench engine` measures, as llama-bench names it: a prompt computed (`tokens` of it), or `tokens`
// generated one by one, by `batch` sequences at once, each after `depth` tokens whose KV is there.
struct BenchCase {
  enum class Kind : uint8_t { kPrompt, kGenerate } kind = Kind::kPrompt;
  uint32_t tokens = 0, depth = 0, batch = 0;
  std::string name() const;  // "pp512", "tg128 @ d4000"
};

// Tokens per second over repetitions, and what of the machine's limits that is.
struct BenchLine {
  BenchCase what;
  std::vector<double> tokens_per_second;              // of all sequences; one per repetition, ascending
  double flops_per_second = 0, bytes_per_second = 0;  // of the median repetition, from the operations' own counters
  double median() const { return tokens_per_second[tokens_per_second.size() / 2]; }
};

// From --prompt-tokens, --generate-tokens, --depth and --batch: prompts first, then generation; by length, then depth,
// then batch. A 0 in the list of lengths asks for nothing. Throws SetupError when nothing is left.
std::vector<BenchCase> bench_cases(const Options& options);

// Room for the largest of `cases`. Throws SetupError naming the case that the model has too few positions for.
LocalModel::Limits bench_limits(const std::vector<BenchCase>& cases, const ModelConfig& config, const Options& options);

// What most of the layers' weights are multiplied with: bf16 where they are packed as bf16, whatever was asked
// for.
Activations activations_of_products(const Weights& weights, Activations asked);

// Each case once unmeasured, then `repetitions` times, through Engine and Executor. Progress on stderr. REQUIRES
// model.limits() from bench_limits() of the same cases, repetitions > 0. Throws SetupError.
std::vector<BenchLine> bench_engine(LocalModel& model, const std::vector<BenchCase>& cases, uint32_t repetitions);

}  // namespace spillway
