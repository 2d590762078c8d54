// Each architecture against an engine that shares nothing with this one: float64 numpy in the conventions of Hugging
// Face (make_architecture_goldens.py), on a tiny model that the PyPI package `gguf` wrote.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"

namespace spillway {
namespace {

using Part = DecoderHarness::Part;
using Rows = std::vector<std::vector<float>>;

struct Golden {
  std::vector<TokenId> prompt, greedy;
  std::vector<double> margins;                     // of each greedy token over its runner-up
  std::vector<size_t> positions;                   // of the prompt, whose logits follow
  std::vector<std::vector<double>> rows;           // exact
  double deviation = 0;                            // standard deviation of all logits: the unit of what follows
  double rounding_mean = 0, rounding_largest = 0;  // |exact - rounded to bf16| of the numpy engine
};

Golden read_golden(const std::string& path) {
  std::ifstream file(path);
  const nlohmann::json json = nlohmann::json::parse(file);
  return {.prompt = json["prompt_ids"],
          .greedy = json["greedy_ids"],
          .margins = json["greedy_margins"],
          .positions = json["positions"],
          .rows = json["logits"],
          .deviation = json["deviation"],
          .rounding_mean = json["rounding"]["mean"],
          .rounding_largest = json["rounding"]["largest"]};
}

// The product rounds to bf16 where the numpy engine's second pass does and sums in another order, so its error is as
// large, not equal: were all roundings of both independent, they would still be equally far from the exact values. A
// class that also rounds p (docs/numerics.md) is somewhat farther: twice in all; sqrt(2) more for the largest of a
// thousand.
double mean_limit(const Golden& golden) { return 2 * golden.rounding_mean; }
double largest_limit(const Golden& golden) { return 2 * std::sqrt(2.0) * golden.rounding_largest; }

class ArchitectureGolden : public testing::TestWithParam<std::tuple<std::string, std::string>> {
 protected:
  void SetUp() override {
    const std::string path = std::string(SPILLWAY_TEST_DATA "/architectures/") + std::get<1>(GetParam());
    golden_ = read_golden(path + ".json");
    Result<GgufFile> opened = GgufFile::open(path + ".gguf");
    ASSERT_TRUE(opened) << opened.error().detail;
    file_ = std::make_unique<GgufFile>(std::move(*opened));
  }
  DecoderHarness harness(const ModelChange& change = {}) const {
    return DecoderHarness(*file_, {.isa = std::get<0>(GetParam()), .slot_count = 8}, change);
  }
  Rows prompt_logits(DecoderHarness& decoder) const {
    ResidentGate gate;
    const Part part{.tokens = golden_.prompt, .slots = slots_from(0, 3), .all_logits = true};
    return decoder.forward({&part, 1}, gate);
  }
  struct Distance {  // in units of the logits' deviation
    double mean = 0, largest = 0;
  };
  Distance distance(const Rows& rows) const {
    Distance distance;
    size_t count = 0;
    for (size_t i = 0; i < golden_.rows.size(); ++i)
      for (size_t token = 0; token < golden_.rows[i].size(); ++token, ++count) {
        const double off = std::abs(rows[golden_.positions[i]][token] - golden_.rows[i][token]) / golden_.deviation;
        distance.mean += off;
        distance.largest = std::max(distance.largest, off);
      }
    distance.mean /= static_cast<double>(count);
    return distance;
  }
  // How far the logits go without a fact of the model, in mean limits.
  double limits_off(const ModelChange& change) const {
    DecoderHarness wrong = harness(change);
    const double limits = distance(prompt_logits(wrong)).mean / mean_limit(golden_);
    fmt::print("{:.1f} limits off\n", limits);
    return limits;
  }

  Golden golden_;
  std::unique_ptr<GgufFile> file_;
};
INSTANTIATE_TEST_SUITE_P(Models, ArchitectureGolden,
                         testing::Combine(testing::ValuesIn(available_isa_levels()),
                                          testing::Values("llama3", "llama_linear", "qwen2", "qwen3")),
                         [](const auto& param) { return std::get<0>(param.param) + "_" + std::get<1>(param.param); });

TEST_P(ArchitectureGolden, LogitsAreWithinTheLimitOfBf16) {
  DecoderHarness decoder = harness();
  const Distance off = distance(prompt_logits(decoder));
  fmt::print("mean {:.5f} (limit {:.5f}), largest {:.4f} (limit {:.4f})\n", off.mean, mean_limit(golden_), off.largest,
             largest_limit(golden_));
  EXPECT_LT(off.mean, mean_limit(golden_));
  EXPECT_LT(off.largest, largest_limit(golden_));
}

// Each step is fed the golden tokens so far, so a near-tie does not end the comparison.
TEST_P(ArchitectureGolden, GreedyTokensAreEqualWhereTheReferenceIsSure) {
  DecoderHarness decoder = harness();
  const double near_tie = 2 * largest_limit(golden_) * golden_.deviation;
  ResidentGate gate;
  std::vector<float> logits = decoder.last_logits(golden_.prompt, 64, slots_from(0, 3));
  size_t compared = 0;
  for (size_t step = 0; step < golden_.greedy.size(); ++step) {
    const auto best = static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    if (golden_.margins[step] > near_tie) {
      ++compared;
      EXPECT_EQ(best, golden_.greedy[step]) << "step " << step;
    }
    const Part part{.tokens = {golden_.greedy[step]},
                    .position_first = static_cast<uint32_t>(golden_.prompt.size() + step),
                    .slots = slots_from(0, 3)};
    logits = decoder.forward({&part, 1}, gate).front();
  }
  fmt::print("{} of {} tokens equal, the rest near-ties\n", compared, golden_.greedy.size());
  EXPECT_GE(3 * compared, golden_.greedy.size());
}

// Were a fact of the model lost on the way, the limits above would show it by far.
TEST_P(ArchitectureGolden, EveryFactOfTheModelMovesTheLogitsFarBeyondTheLimit) {
  constexpr double kFar = 10;
  const std::unique_ptr<DecoderHarness> right = std::make_unique<DecoderHarness>(harness());
  const ModelConfig config = right->config();
  EXPECT_GT(limits_off({.config =
                            [](ModelConfig& c) {
                              c.architecture.rope_order = c.architecture.rope_order == RopeOrder::kPairs
                                                              ? RopeOrder::kHalves
                                                              : RopeOrder::kPairs;
                            }}),
            kFar)
      << "RoPE order";
  if (!config.rope.divisors.empty()) {
    EXPECT_GT(limits_off({.config = [](ModelConfig& c) { std::ranges::fill(c.rope.divisors, 1.0f); }}), kFar);
  }
  if (config.rope.position_scale != 1.0) {
    EXPECT_GT(limits_off({.config = [](ModelConfig& c) { c.rope.position_scale = 1.0; }}), kFar);
  }
  if (config.architecture.qkv_bias) {
    EXPECT_GT(limits_off({.layer = [](LayerWeights& layer) { layer.qkv_bias = {}; }}), kFar);
  }
  if (config.architecture.qk_norm) {
    EXPECT_GT(limits_off({.layer = [](LayerWeights& layer) { layer.q_norm = layer.k_norm = {}; }}), kFar);
  }
}

}  // namespace
}  // namespace spillway
