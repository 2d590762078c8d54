#include "cli/bench_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>

#include "cli/local_engine.h"
#include "common/check.h"
#include "kernels/cpu/machine_peak.h"

namespace spillway {
namespace {

constexpr uint32_t kPromptTokens = 512, kGeneratedTokens = 128;
constexpr uint32_t kBatches[] = {1, 8};
constexpr uint32_t kBatchMax = 8;

struct Measured {
  double tokens_per_second = 0, flops_per_second = 0, bytes_per_second = 0;
};

// Prompts that share no block, whatever came before: a new first token each time.
std::vector<LocalEngine::Request> requests(uint32_t batch, uint32_t prompt_tokens, uint32_t tokens_max,
                                           uint32_t vocab) {
  std::vector<LocalEngine::Request> requests(batch);
  for (uint32_t i = 0; i < batch; ++i) {
    requests[i].tokens_max = tokens_max;
    for (uint32_t t = 0; t < prompt_tokens; ++t) requests[i].prompt.push_back((i * 7919u + t * 104729u + 17u) % vocab);
  }
  return requests;
}

Measured per_second(const OpCounters& counters, uint64_t tokens, double elapsed) {
  return {.tokens_per_second = static_cast<double>(tokens) / elapsed,
          .flops_per_second = static_cast<double>(counters.gemm_flops + counters.attention_flops) / elapsed,
          .bytes_per_second = static_cast<double>(counters.weight_bytes + counters.kv_bytes) / elapsed};
}

// From the first request given to the last first token out.
Measured measure_prompts(LocalModel& model, uint32_t batch) {
  LocalEngine engine(model, kPromptTokens, kBatchMax);  // a new one: nothing is cached
  model.backend().reset_counters();
  const auto answers = value_or_throw(engine.generate(requests(batch, kPromptTokens, 1, model.config().vocab), {}));
  TimePoint last = answers.front().last_token;
  for (const LocalEngine::Answer& answer : answers) last = std::max(last, answer.last_token);
  return per_second(model.backend().counters(), uint64_t{batch} * kPromptTokens,
                    seconds(last - answers.front().started));
}

// Decode steps only: from the first tokens (sampled in one step, for prompts of one token) to the last.
Measured measure_generation(LocalModel& model, uint32_t batch) {
  LocalEngine engine(model, kPromptTokens, kBatchMax);
  uint32_t begun = 0;
  const auto answers = value_or_throw(engine.generate(requests(batch, 1, kGeneratedTokens + 1, model.config().vocab),
                                                      [&](size_t, const EngineToken& token) {
                                                        if (token.index == 0 && ++begun == batch)
                                                          model.backend().reset_counters();
                                                      }));
  return per_second(model.backend().counters(), uint64_t{batch} * kGeneratedTokens,
                    seconds(answers.back().last_token - answers.back().first_token));
}

template <class Measure>
BenchLine bench_line(const char* name, uint32_t batch, uint32_t repetitions, Measure&& measure) {
  fmt::print(stderr, "measuring {} batch {}\n", name, batch);
  measure(batch);
  std::vector<Measured> measured;
  for (uint32_t i = 0; i < repetitions; ++i) measured.push_back(measure(batch));
  std::sort(measured.begin(), measured.end(),
            [](const Measured& a, const Measured& b) { return a.tokens_per_second < b.tokens_per_second; });
  BenchLine line{.name = name, .batch = batch, .tokens_per_second = {}};
  for (const Measured& one : measured) line.tokens_per_second.push_back(one.tokens_per_second);
  line.flops_per_second = measured[repetitions / 2].flops_per_second;
  line.bytes_per_second = measured[repetitions / 2].bytes_per_second;
  return line;
}

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown CPU";
}

struct Machine {
  std::string cpu;
  uint32_t threads = 0;
  double flops_per_second = 0;
  double memory_bytes_per_second = 0;   // beyond all caches
  double weights_bytes_per_second = 0;  // as many bytes as the weights have: the last cache may hold a part of them
};

std::string format_table(const std::vector<BenchLine>& lines, const Machine& machine) {
  std::string text = fmt::format(
      "{}, {} threads, same run: multiply-add peak {:.0f} GFLOP/s; read bandwidth {:.1f} GB/s, {:.1f} GB/s over as\n"
      "many bytes as the weights have (the limit of \"of read\")\n"
      "{:<8}{:>6}{:>11}{:>22}{:>11}{:>9}{:>9}{:>9}\n",
      machine.cpu, machine.threads, machine.flops_per_second / 1e9, machine.memory_bytes_per_second / 1e9,
      machine.weights_bytes_per_second / 1e9, "", "batch", "tok/s", "lowest - highest", "GFLOP/s", "of peak", "GB/s",
      "of read");
  for (const BenchLine& line : lines)
    text += fmt::format("{:<8}{:>6}{:>11.1f}{:>22}{:>11.1f}{:>8.1f}%{:>9.2f}{:>8.1f}%\n", line.name, line.batch,
                        line.median(),
                        fmt::format("{:.1f} - {:.1f}", line.tokens_per_second.front(), line.tokens_per_second.back()),
                        line.flops_per_second / 1e9, 100 * line.flops_per_second / machine.flops_per_second,
                        line.bytes_per_second / 1e9, 100 * line.bytes_per_second / machine.weights_bytes_per_second);
  return text;
}

std::string format_json(const std::vector<BenchLine>& lines, const Machine& machine, std::string_view backend) {
  nlohmann::json report{{"cpu", machine.cpu},
                        {"backend", backend},
                        {"threads", machine.threads},
                        {"peak_flops_per_second", machine.flops_per_second},
                        {"read_bytes_per_second", machine.memory_bytes_per_second},
                        {"weights_read_bytes_per_second", machine.weights_bytes_per_second},
                        {"lines", nlohmann::json::array()}};
  for (const BenchLine& line : lines)
    report["lines"].push_back({{"name", line.name},
                               {"batch", line.batch},
                               {"tokens_per_second", line.median()},
                               {"all_tokens_per_second", line.tokens_per_second},
                               {"flops_per_second", line.flops_per_second},
                               {"bytes_per_second", line.bytes_per_second}});
  return report.dump(2) + "\n";
}

}  // namespace

double BenchLine::median() const { return tokens_per_second[tokens_per_second.size() / 2]; }

std::vector<BenchLine> bench_engine(LocalModel& model, uint32_t repetitions) {
  CHECK(repetitions > 0);
  std::vector<BenchLine> lines;
  for (const uint32_t batch : kBatches)
    lines.push_back(bench_line("pp512", batch, repetitions, [&](uint32_t b) { return measure_prompts(model, b); }));
  for (const uint32_t batch : kBatches)
    lines.push_back(bench_line("tg128", batch, repetitions, [&](uint32_t b) { return measure_generation(model, b); }));
  return lines;
}

LocalModel::Limits bench_limits(const ModelConfig& config, const Options& options) {
  constexpr uint32_t kPositions = kPromptTokens + 1;
  const KvLayout layout = config.kv_layout();
  if (config.context_max < kPositions)
    throw SetupError(fmt::format("bench needs {} positions, this model has {}", kPositions, config.context_max));
  return {.isa = options.isa,
          .threads = options.threads,
          .rows_max = kPromptTokens + kBatchMax,
          .logit_rows_max = kBatchMax,
          .model_len = kPositions,
          .kv_bytes = uint64_t{kBatchMax} * layout.blocks_for(kPositions) * layout.block_bytes(),
          .cache_dir = options.cache_dir};
}

int bench_command(const Options& options) {
  const ModelFile file(options.model);
  LocalModel model(file, bench_limits(file.config(), options));
  Machine machine{.cpu = cpu_name(),
                  .threads = options.threads == 0 ? std::thread::hardware_concurrency() : options.threads};
  fmt::print(stderr, "measuring the machine\n");
  const MachinePeak peak = measure_machine_peak(machine.threads);
  // Weights and activations are bf16: where the machine cannot multiply these, f32 is what it has.
  machine.flops_per_second = peak.bf16_flops_per_s > 0 ? peak.bf16_flops_per_s : peak.f32_flops_per_s;
  machine.memory_bytes_per_second = peak.read_bytes_per_s;
  machine.weights_bytes_per_second = measure_read_bandwidth(machine.threads, model.weights().packed_bytes());
  const std::vector<BenchLine> lines = bench_engine(model, options.repetitions);
  fmt::print("{}", options.format == "json" ? format_json(lines, machine, model.backend().name())
                                            : format_table(lines, machine));
  return 0;
}

}  // namespace spillway
