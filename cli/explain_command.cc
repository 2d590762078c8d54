#include "cli/explain_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <iterator>

#include "cli/memory_plan.h"
#include "cli/packed_model.h"
#include "cli/precision.h"

namespace spillway {
namespace {

constexpr size_t kStepsHead = 5, kStepsTail = 2;  // of a longer run only so many steps are printed

struct NamedCounter {
  const char* name;
  uint64_t OpCounters::*value;
};
constexpr NamedCounter kCounters[] = {
    {"q_rows", &OpCounters::q_rows},
    {"kv_rows", &OpCounters::kv_rows},
    {"mlp_rows", &OpCounters::mlp_rows},
    {"logit_rows", &OpCounters::logit_rows},
    {"gemm_flops", &OpCounters::gemm_flops},
    {"attention_flops", &OpCounters::attention_flops},
    {"weight_bytes", &OpCounters::weight_bytes},
    {"kv_bytes", &OpCounters::kv_bytes},
};

std::vector<std::string> counter_mismatches(const LocalModel& model, DecodeWay way, const DecodeRun& run) {
  std::vector<std::string> mismatches;
  for (size_t i = 0; i < run.steps.size(); ++i) {
    const DecodeStep& step = run.steps[i];
    const OpCounters expected = expected_counters(model, way, step.position_first, step.rows);
    for (const NamedCounter& counter : kCounters)
      if (step.counters.*counter.value != expected.*counter.value)
        mismatches.push_back(fmt::format("step {}: {} counted {}, the formula gives {}", i, counter.name,
                                         step.counters.*counter.value, expected.*counter.value));
  }
  return mismatches;
}

bool same_bits(const DecodeRun& a, const DecodeRun& b) {
  const auto same_step = [](const DecodeStep& x, const DecodeStep& y) {
    return x.token == y.token && x.logits_digest == y.logits_digest;
  };
  return std::equal(a.steps.begin(), a.steps.end(), b.steps.begin(), b.steps.end(), same_step) &&
         a.final_logits.size() == b.final_logits.size() &&
         std::memcmp(a.final_logits.data(), b.final_logits.data(), a.final_logits.size() * sizeof(float)) == 0;
}

DecodeStep total(const DecodeRun& run) {
  DecodeStep sum;
  for (const DecodeStep& step : run.steps) {
    sum.elapsed += step.elapsed;
    for (const NamedCounter& counter : kCounters) sum.counters.*counter.value += step.counters.*counter.value;
  }
  return sum;
}

double gflop(const OpCounters& counters) {
  return static_cast<double>(counters.gemm_flops + counters.attention_flops) / 1e9;
}
double megabytes(const OpCounters& counters) {
  return static_cast<double>(counters.weight_bytes + counters.kv_bytes) / 1e6;
}

using Text = fmt::memory_buffer;

template <class... Args>
void add(Text& text, fmt::format_string<Args...> format, Args&&... args) {
  fmt::format_to(std::back_inserter(text), format, std::forward<Args>(args)...);
}

void add_row(Text& text, const std::string& label, const DecodeStep& step) {
  const OpCounters& counters = step.counters;
  add(text, "  {:<9}{:>9}{:>9}{:>9}{:>9}{:>11}{:>11.3f}{:>11.1f}{:>11.2f}\n", label, counters.q_rows, counters.kv_rows,
      counters.kv_rows, counters.mlp_rows, counters.logit_rows, gflop(counters), megabytes(counters),
      milliseconds(step.elapsed));
}

void add_way(Text& text, char letter, const Explanation::Way& way) {
  add(text, "({}) {}\n", letter, way_name(way.way));
  add(text, "  {:<9}{:>9}{:>9}{:>9}{:>9}{:>11}{:>11}{:>11}{:>11}\n", "step", "Q rows", "K rows", "V rows", "MLP rows",
      "classifier", "GFLOP", "MB read", "ms");
  const std::vector<DecodeStep>& steps = way.run.steps;
  const bool all = steps.size() <= kStepsHead + kStepsTail + 1;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (all || i < kStepsHead || i + kStepsTail >= steps.size()) {
      add_row(text, fmt::format("{}", i), steps[i]);
    } else if (i == kStepsHead) {
      add(text, "  ... {} more\n", steps.size() - kStepsHead - kStepsTail);
    }
  }
  add_row(text, "all", total(way.run));
  for (const std::string& mismatch : way.counter_mismatches) add(text, "  COUNTER WRONG: {}\n", mismatch);
  add(text, "\n");
}

void add_summary(Text& text, const Explanation& explanation) {
  const DecodeStep plain = total(explanation.ways.front().run);
  add(text, "{:<14}{:>11}{:>11}{:>11}{:>10}  {:<17}{}\n", "", "GFLOP", "MB read", "ms", "speed-up", "final logits",
      "counters");
  for (const Explanation::Way& way : explanation.ways) {
    const DecodeStep sum = total(way.run);
    add(text, "{:<14}{:>11.3f}{:>11.1f}{:>11.2f}{:>9.2f}x  {:<17}{}\n", way_name(way.way), gflop(sum.counters),
        megabytes(sum.counters), milliseconds(sum.elapsed), seconds(plain.elapsed) / seconds(sum.elapsed),
        way.bits_equal ? "equal, every bit" : "DIFFERENT",
        way.counter_mismatches.empty() ? "as the formula says" : "WRONG");
  }
}

}  // namespace

bool Explanation::holds() const {
  return std::all_of(ways.begin(), ways.end(), [](const Way& way) {
    return way.bits_equal && way.counter_mismatches.empty() &&
           std::all_of(way.run.steps.begin(), way.run.steps.end(), [](const DecodeStep& step) { return step.finite; });
  });
}

Explanation explain(LocalModel& model, std::span<const TokenId> prompt, uint32_t tokens) {
  Explanation explanation;
  constexpr std::array kWays{DecodeWay::kNoCache, DecodeWay::kPruned, DecodeWay::kKvCache};
  for (size_t i = 0; i < kWays.size(); ++i) {
    fmt::print(stderr, "executing: {} ({} prompt tokens, {} steps)\n", way_name(kWays[i]), prompt.size(), tokens);
    Explanation::Way& way = explanation.ways[i];
    way.way = kWays[i];
    way.run = decode_by(model, kWays[i], prompt, tokens);
    way.counter_mismatches = counter_mismatches(model, kWays[i], way.run);
    way.bits_equal = same_bits(explanation.ways.front().run, way.run);
  }
  return explanation;
}

std::string format_explanation(const Explanation& explanation, const ModelConfig& config, size_t prompt_tokens) {
  Text text;
  add(text, "{} prompt tokens, {} steps. Rows are summed over {} layers; MB read: weights and KV, each once.\n\n",
      prompt_tokens, explanation.ways.front().run.steps.size(), config.layer_count);
  char letter = 'a';
  for (const Explanation::Way& way : explanation.ways) add_way(text, letter++, way);
  add_summary(text, explanation);
  add(text,
      "\nA step needs K and V of every earlier token, but Q of the newest row only: each row of Q is used once, in "
      "the\n"
      "step that computed it. So K and V are kept and Q is not, and the output does not change by a single bit.\n");
  return fmt::to_string(text);
}

int explain_command(const Options& options) {
  const ModelFile file(options.model);
  const std::vector<TokenId> prompt = file.encode_prompt(options.prompt, options.chat);
  const uint32_t model_len = effective_model_len(options, file.config());
  if (prompt.size() + options.max_tokens - 1 > model_len)
    throw SetupError(
        fmt::format("{} prompt tokens and {} steps exceed the {} positions of the model: shorten --prompt "
                    "or lower --max-tokens",
                    prompt.size(), options.max_tokens, model_len));
  const auto rows = static_cast<uint32_t>(prompt.size() + options.max_tokens - 1);
  const KvLayout layout = file.config().kv_layout(precision_of(options).kv);
  LocalModel model(file, {.isa = options.isa,
                          .threads = options.threads,
                          .rows_max = rows,
                          .logit_rows_max = rows,
                          .model_len = rows,
                          .kv_bytes = uint64_t{layout.blocks_for(rows)} * layout.block_bytes(),
                          .cache = weights_cache_of(options),
                          .precision = precision_of(options)});
  const Explanation explanation = explain(model, prompt, options.max_tokens);
  fmt::print("{} on {}\n", options.model, model.backend().name());
  fmt::print("{}", format_explanation(explanation, file.config(), prompt.size()));
  return explanation.holds() ? 0 : 1;
}

}  // namespace spillway
