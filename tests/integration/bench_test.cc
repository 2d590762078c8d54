#include <gtest/gtest.h>

#include <algorithm>

#include "cli/bench_command.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

TEST(BenchEngine, MeasuresPromptsAndGenerationAtBothBatches) {
  const ModelFile file(TinyModelFile({.seed = 51}).path());
  Options options;
  options.threads = 1;
  LocalModel model(file, bench_limits(file.config(), options));
  const std::vector<BenchLine> lines = bench_engine(model, 3);
  ASSERT_EQ(lines.size(), 4u);
  EXPECT_EQ(lines[0].name, "pp512");
  EXPECT_EQ(lines[3].name, "tg128");
  EXPECT_EQ(lines[3].batch, 8u);
  for (const BenchLine& line : lines) {
    ASSERT_EQ(line.tokens_per_second.size(), 3u);
    EXPECT_TRUE(std::is_sorted(line.tokens_per_second.begin(), line.tokens_per_second.end()));
    EXPECT_GT(line.tokens_per_second.front(), 0);
    EXPECT_EQ(line.median(), line.tokens_per_second[1]);
  }
  // A decode step of one sequence reads all weights once: what was read tells how many steps were counted.
  const double steps_per_second = lines[2].median();
  EXPECT_GT(lines[2].bytes_per_second, steps_per_second * static_cast<double>(model.weights().packed_bytes()));
  EXPECT_LT(lines[2].bytes_per_second, steps_per_second * static_cast<double>(model.weights().packed_bytes()) * 1.5);
}

TEST(BenchEngine, AModelTooShortForThePromptCannotStart) {
  const ModelFile file(TinyModelFile({.seed = 52, .context = 512}).path());
  EXPECT_THROW((void)bench_limits(file.config(), Options{}), SetupError);
}

}  // namespace
}  // namespace spillway
