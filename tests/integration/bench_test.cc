#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/bench_engine.h"
#include "cli/bench_report.h"
#include "common/check.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

Options one_thread() {
  Options options;
  options.threads = 1;
  return options;
}

TEST(BenchEngine, MeasuresPromptsAndGenerationAtBothBatches) {
  const ModelFile file(TinyModelFile({.seed = 51}).path());
  const Options options = one_thread();
  const std::vector<BenchCase> cases = bench_cases(options);
  LocalModel model(file, bench_limits(cases, file.config(), options));
  const std::vector<BenchLine> lines = bench_engine(model, cases, 3);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].what.name(), "pp512");
  EXPECT_EQ(lines[3].what.name(), "tg128");
  EXPECT_EQ(lines[3].what.batch, 8u);
  for (const BenchLine& line : lines) {
    ASSERT_EQ(line.tokens_per_second.size(), 3u);
    EXPECT_TRUE(std::is_sorted(line.tokens_per_second.begin(), line.tokens_per_second.end()));
    EXPECT_GT(line.tokens_per_second.front(), 0);
    EXPECT_EQ(line.median(), line.tokens_per_second[1]);
  }
  // A decode step reads all weights once, whatever the batch: what was read tells how many steps were counted.
  const auto weights = static_cast<double>(model.weights().packed_bytes());
  EXPECT_GT(lines[2].bytes_per_second, lines[2].median() * weights);
  EXPECT_LT(lines[2].bytes_per_second, lines[2].median() * weights * 1.5);
  EXPECT_GT(lines[3].bytes_per_second, lines[3].median() / 8 * weights);
  EXPECT_LT(lines[3].bytes_per_second, lines[3].median() / 8 * weights * 2.5);
}

// By the operations' own counters: a step behind 448 tokens reads their KV too, and a prompt behind them is its own
// tokens only, although each of its rows sees the ones before.
TEST(BenchEngine, DepthIsThereBeforeTheMeasurement) {
  const ModelFile file(TinyModelFile({.seed = 53}).path());
  Options options = one_thread();
  options.bench_prompts = {64};
  options.bench_generates = {16};
  options.bench_depths = {0, 448};
  options.bench_batches = {2};
  const std::vector<BenchCase> cases = bench_cases(options);
  LocalModel model(file, bench_limits(cases, file.config(), options));
  const std::vector<BenchLine> lines = bench_engine(model, cases, 1);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[1].what.name(), "pp64 @ d448");
  EXPECT_EQ(lines[3].what.name(), "tg16 @ d448");
  const auto per_token = [&](size_t line, double figure) { return figure / lines[line].median(); };
  const KvLayout layout = file.config().kv_layout();
  const double depth_bytes = 448.0 * layout.layer_count * layout.kv_heads * layout.head_dim * 2 * 2;
  EXPECT_NEAR(per_token(3, lines[3].bytes_per_second) - per_token(2, lines[2].bytes_per_second), depth_bytes,
              depth_bytes * 0.01);
  // Attention over the depth is all that a token costs more; in the last layer one row of the prompt's 64 has it.
  const double attention = 448.0 * 4 * layout.head_dim * file.config().heads * (layout.layer_count - 1 + 1.0 / 64);
  EXPECT_NEAR(per_token(1, lines[1].flops_per_second) - per_token(0, lines[0].flops_per_second), attention,
              attention * 0.05);
}

TEST(BenchEngine, AModelTooShortForThePromptCannotStart) {
  const ModelFile file(TinyModelFile({.seed = 52, .context = 512}).path());
  Options options;
  options.bench_depths = {64};
  EXPECT_THROW((void)bench_limits(bench_cases(options), file.config(), options), SetupError);
  options.bench_prompts = options.bench_generates = {0};
  EXPECT_THROW((void)bench_cases(options), SetupError) << "nothing to measure";
}

// Weights without codes meet bf16 whatever was asked for; a mixed file is what most of its layers' weights are.
TEST(BenchEngine, ThePeakIsThatOfTheProductsThatTheModelMakes) {
  using Types = TinyModelOptions::Types;
  for (const auto& [types, with_int8] : {std::pair{Types::kF32, Activations::kBf16},
                                         {Types::kBf16, Activations::kBf16},
                                         {Types::kQ8_0, Activations::kInt8},
                                         {Types::kQ4_1, Activations::kInt8},
                                         {Types::kMixed, Activations::kBf16}}) {
    const ModelFile file(TinyModelFile({.seed = 54, .types = types}).path());
    const LocalModel model(file, bench_limits(bench_cases(one_thread()), file.config(), one_thread()));
    EXPECT_EQ(activations_of_products(model.weights(), Activations::kBf16), Activations::kBf16);
    EXPECT_EQ(activations_of_products(model.weights(), Activations::kInt8), with_int8) << static_cast<int>(types);
  }
}

TEST(BenchReport, EachFormatSaysTheSame) {
  BenchLine line{.what = {.kind = BenchCase::Kind::kGenerate, .tokens = 64, .depth = 4000, .batch = 8},
                 .tokens_per_second = {90, 100, 120},
                 .flops_per_second = 25e9,
                 .bytes_per_second = 30e9};
  const BenchMachine machine{.cpu = "A CPU",
                             .backend = "cpu/scalar",
                             .threads = 2,
                             .step_threads = "2",
                             .flops_per_second = 100e9,
                             .memory_bytes_per_second = 50e9,
                             .weights_bytes_per_second = 40e9};
  const nlohmann::json json = nlohmann::json::parse(format_bench("json", {line}, machine));
  EXPECT_EQ(json["lines"][0]["name"], "tg64 @ d4000");
  EXPECT_EQ(json["lines"][0]["tokens_per_second"], 100);
  EXPECT_EQ(json["lines"][0]["share_of_peak"], 0.25);
  EXPECT_EQ(json["lines"][0]["share_of_read"], 0.75);
  const std::string csv = format_bench("csv", {line}, machine);
  EXPECT_NE(csv.find("\ntg64 @ d4000,0,64,4000,8,\"A CPU\",cpu/scalar,2,100.000,90.000,120.000,2.5e+10,0.2500,3e+10,"
                     "0.7500\n"),
            std::string::npos)
      << csv;
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 2);
  const std::string table = format_bench("table", {line}, machine);
  EXPECT_NE(table.find("tg64 @ d4000"), std::string::npos);
  EXPECT_NE(table.find("75.0%"), std::string::npos) << table;
}

}  // namespace
}  // namespace spillway
