#include "cli/bench_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "cli/local_engine.h"
#include "cli/packed_model.h"
#include "cli/precision.h"
#include "common/check.h"
#include "kernels/cpu/panel_format.h"

namespace spillway {
namespace {

constexpr uint32_t kChunkTokens = 512;  // the default of --chunk-tokens
constexpr uint32_t kBlockTokens = 64;   // of ModelConfig::kv_layout()

struct Measured {
  double tokens_per_second = 0, flops_per_second = 0, bytes_per_second = 0;
};

// Sequences begin in one step where what is not cached of their prompts (at most a block each) fits a chunk, else in
// neighbouring ones: so many more tokens keep the first of them running until the last one's are measured.
uint32_t spare_tokens(uint32_t batch) { return batch * kBlockTokens / kChunkTokens + 1; }

// Generation begins after one token more than its depth: the one whose step gives the first token.
uint32_t positions_of(const BenchCase& what) {
  return what.kind == BenchCase::Kind::kPrompt ? what.depth + what.tokens
                                               : what.depth + 1 + what.tokens + spare_tokens(what.batch);
}

// Prompts of `count` tokens that share no block.
std::vector<LocalEngine::Request> requests(uint32_t batch, uint32_t count, uint32_t tokens_max, uint32_t vocab) {
  std::vector<LocalEngine::Request> requests(batch);
  for (uint32_t i = 0; i < batch; ++i) {
    requests[i].tokens_max = tokens_max;
    for (uint32_t t = 0; t < count; ++t) requests[i].prompt.push_back((i * 7919u + t * 104729u + 17u) % vocab);
  }
  return requests;
}

Measured per_second(const OpCounters& counters, uint64_t tokens, double elapsed) {
  return {.tokens_per_second = static_cast<double>(tokens) / elapsed,
          .flops_per_second = static_cast<double>(counters.gemm_flops + counters.attention_flops) / elapsed,
          .bytes_per_second = static_cast<double>(counters.weight_bytes + counters.kv_bytes) / elapsed};
}

// A new engine, in whose cache the KV of the first `depth` tokens of each sequence is, but for less than a block.
struct WarmEngine {
  LocalEngine engine;
  WarmEngine(LocalModel& model, const BenchCase& what) : engine(model, kChunkTokens, what.batch) {
    if (what.depth > 0) value_or_throw(engine.generate(requests(what.batch, what.depth, 1, model.config().vocab), {}));
  }
};

// From the requests given to the last first token out. What of `depth` was not cached (less than a block) is computed
// beside, and counted neither as tokens nor left out of the time.
Measured measure_prompts(LocalModel& model, const BenchCase& what) {
  WarmEngine warm(model, what);
  model.backend().reset_counters();
  const auto answers =
      value_or_throw(warm.engine.generate(requests(what.batch, what.depth + what.tokens, 1, model.config().vocab), {}));
  TimePoint last = answers.front().last_token;
  for (const LocalEngine::Answer& answer : answers) last = std::max(last, answer.last_token);
  return per_second(model.backend().counters(), uint64_t{what.batch} * what.tokens,
                    seconds(last - answers.front().started));
}

// Decode steps of the whole batch: from the step that gave the last sequence its first token.
Measured measure_generation(LocalModel& model, const BenchCase& what) {
  WarmEngine warm(model, what);
  uint32_t begun = 0;
  size_t last_begun = 0;
  TimePoint started;
  std::optional<Measured> measured;
  const auto on_token = [&](size_t request, const EngineToken& token) {
    if (token.index == 0 && ++begun == what.batch) {
      last_begun = request;
      model.backend().reset_counters();
      started = steady_now();
    } else if (begun == what.batch && request == last_begun && token.index == what.tokens) {
      measured =
          per_second(model.backend().counters(), uint64_t{what.tokens} * what.batch, seconds(steady_now() - started));
    }
  };
  const uint32_t tokens_max = what.tokens + 1 + spare_tokens(what.batch);
  value_or_throw(
      warm.engine.generate(requests(what.batch, what.depth + 1, tokens_max, model.config().vocab), on_token));
  CHECK(measured.has_value());
  return *measured;
}

BenchLine measure(LocalModel& model, const BenchCase& what, uint32_t repetitions) {
  fmt::print(stderr, "measuring {}, batch {}\n", what.name(), what.batch);
  const auto once = [&] {
    return what.kind == BenchCase::Kind::kPrompt ? measure_prompts(model, what) : measure_generation(model, what);
  };
  once();
  std::vector<Measured> measured;
  for (uint32_t i = 0; i < repetitions; ++i) measured.push_back(once());
  std::sort(measured.begin(), measured.end(),
            [](const Measured& a, const Measured& b) { return a.tokens_per_second < b.tokens_per_second; });
  BenchLine line{.what = what, .tokens_per_second = {}};
  for (const Measured& one : measured) line.tokens_per_second.push_back(one.tokens_per_second);
  line.flops_per_second = measured[repetitions / 2].flops_per_second;
  line.bytes_per_second = measured[repetitions / 2].bytes_per_second;
  return line;
}

}  // namespace

std::string BenchCase::name() const {
  const std::string name = fmt::format("{}{}", kind == Kind::kPrompt ? "pp" : "tg", tokens);
  return depth == 0 ? name : fmt::format("{} @ d{}", name, depth);
}

std::vector<BenchCase> bench_cases(const Options& options) {
  std::vector<BenchCase> cases;
  const auto add = [&](BenchCase::Kind kind, const std::vector<uint32_t>& lengths) {
    for (const uint32_t tokens : lengths)
      for (const uint32_t depth : options.bench_depths)
        for (const uint32_t batch : options.bench_batches)
          if (tokens > 0) cases.push_back({.kind = kind, .tokens = tokens, .depth = depth, .batch = batch});
  };
  add(BenchCase::Kind::kPrompt, options.bench_prompts);
  add(BenchCase::Kind::kGenerate, options.bench_generates);
  if (cases.empty()) throw SetupError("nothing to measure: give --prompt-tokens or --generate-tokens a number above 0");
  return cases;
}

LocalModel::Limits bench_limits(const std::vector<BenchCase>& cases, const ModelConfig& config,
                                const Options& options) {
  const KvLayout layout = config.kv_layout(precision_of(options).kv);
  LocalModel::Limits limits{.isa = options.isa,
                            .threads = options.threads,
                            .cache = weights_cache_of(options),
                            .threads_max = options.threads_max,
                            .cpus = cpus_of(options),
                            .precision = precision_of(options)};
  for (const BenchCase& what : cases) {
    const uint32_t positions = positions_of(what);
    if (positions > config.context_max)
      throw SetupError(fmt::format("{} needs {} positions, this model has {}: lower --depth or the length", what.name(),
                                   positions, config.context_max));
    limits.logit_rows_max = std::max(limits.logit_rows_max, what.batch);
    limits.model_len = std::max(limits.model_len, positions);
    limits.kv_bytes =
        std::max(limits.kv_bytes, uint64_t{what.batch} * layout.blocks_for(positions) * layout.block_bytes());
  }
  limits.rows_max = kChunkTokens + limits.logit_rows_max;
  return limits;
}

Activations activations_of_products(const Weights& weights, Activations asked) {
  size_t narrow = 0, wide = 0;
  for (const LayerWeights& layer : weights.layers)
    for (const Weight* const weight : {&layer.qkv, &layer.attention_out, &layer.gate_up, &layer.down})
      (static_cast<cpu::PanelFormat>(weight->format) == cpu::PanelFormat::kBf16 ? wide : narrow) +=
          size_t{weight->rows} * weight->cols;
  return narrow > wide ? asked : Activations::kBf16;
}

std::vector<BenchLine> bench_engine(LocalModel& model, const std::vector<BenchCase>& cases, uint32_t repetitions) {
  CHECK(repetitions > 0);
  std::vector<BenchLine> lines;
  for (const BenchCase& what : cases) lines.push_back(measure(model, what, repetitions));
  return lines;
}

}  // namespace spillway
