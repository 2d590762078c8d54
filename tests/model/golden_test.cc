// The real model against values of an independent f64 implementation (tests/data, made with numpy), within the limits
// stated there for bf16 activations and K/V. Only the fastest ISA level: the scalar one is compared on tiny models.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"

namespace spillway {
namespace {

using Part = DecoderHarness::Part;

constexpr double kLastPositionLimit = 0.6, kTopLimit = 0.35;  // of a logit
constexpr double kMeanGuard = 0.2;  // the goldens state none: a guard, set after 0.13 was seen
constexpr double kNearTie = 0.25;   // below this margin the argmax may differ
constexpr double kMeanNllLimit = 0.006, kTop1Agreement = 0.975;

nlohmann::json load(const char* name) {
  std::ifstream file(std::string(SPILLWAY_TEST_DATA "/") + name);
  return nlohmann::json::parse(file);
}

class Golden : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    Result<GgufFile> opened = GgufFile::open(SPILLWAY_MODEL);
    ASSERT_TRUE(opened) << opened.error().detail;
    file = std::make_unique<GgufFile>(std::move(*opened));
    harness = std::make_unique<DecoderHarness>(
        *file, DecoderHarness::Limits{.isa = available_isa_levels().back(), .threads = 2, .logit_rows_max = 128});
  }
  static void TearDownTestSuite() {
    harness.reset();
    file.reset();
  }
  static std::unique_ptr<GgufFile> file;
  static std::unique_ptr<DecoderHarness> harness;
};
std::unique_ptr<GgufFile> Golden::file;
std::unique_ptr<DecoderHarness> Golden::harness;

TEST_F(Golden, LastPositionLogitsAreWithinTheLimitOfBf16) {
  const nlohmann::json goldens = load("logits.json");
  for (const nlohmann::json& golden : goldens["cases"]) {
    const auto tokens = golden["ids"].get<std::vector<TokenId>>();
    const std::vector<float> logits = harness->last_logits(tokens, 512, slots_from(0, 12));
    double probed = 0, top = 0;
    for (size_t i = 0; i < golden["probe_logits"].size(); ++i)
      probed = std::max(
          probed, std::abs(logits[goldens["probe_ids"][i].get<size_t>()] - golden["probe_logits"][i].get<double>()));
    for (const nlohmann::json& entry : golden["top32"])
      top = std::max(top, std::abs(logits[entry[0].get<size_t>()] - entry[1].get<double>()));
    const double highest = *std::max_element(logits.begin(), logits.end());
    double sum = 0, mean = 0;
    for (const float logit : logits) {
      sum += std::exp(logit - highest);
      mean += logit / static_cast<double>(logits.size());
    }
    const std::string name = golden["name"];
    fmt::print("{:<20} probes {:.3f}  top 32 {:.3f}  mean {:+.4f}  logsumexp {:+.4f}\n", name, probed, top,
               mean - golden["mean"].get<double>(), highest + std::log(sum) - golden["logsumexp"].get<double>());
    EXPECT_LT(probed, kLastPositionLimit) << name;
    EXPECT_LT(top, kTopLimit) << name;
    EXPECT_NEAR(highest, golden["max"].get<double>(), kTopLimit) << name;
    EXPECT_NEAR(highest + std::log(sum), golden["logsumexp"].get<double>(), kTopLimit) << name;
    EXPECT_NEAR(mean, golden["mean"].get<double>(), kMeanGuard) << name;
  }
}

// Each step is fed the golden tokens so far, so a near-tie does not end the comparison.
TEST_F(Golden, GreedyTokensAreEqualWhereTheReferenceIsSure) {
  const nlohmann::json goldens = load("greedy.json");
  ResidentGate gate;
  size_t compared = 0, skipped = 0;
  for (const nlohmann::json& golden : goldens["cases"]) {
    const auto prompt = golden["prompt_ids"].get<std::vector<TokenId>>();
    const auto generated = golden["generated_ids"].get<std::vector<TokenId>>();
    const auto slots = slots_from(0, 4);
    std::vector<float> logits = harness->last_logits(prompt, 512, slots);
    for (size_t step = 0; step < generated.size(); ++step) {
      const auto best = static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
      if (golden["margins"][step].get<double>() < kNearTie) {
        ++skipped;
        EXPECT_TRUE(best == generated[step] || best == golden["runner_up_ids"][step].get<TokenId>())
            << golden["name"] << " step " << step;
      } else {
        ++compared;
        EXPECT_EQ(best, generated[step]) << golden["name"] << " step " << step;
      }
      const Part part{
          .tokens = {generated[step]}, .position_first = static_cast<uint32_t>(prompt.size() + step), .slots = slots};
      logits = harness->forward({&part, 1}, gate).front();
    }
  }
  fmt::print("{} tokens equal, {} near-ties\n", compared, skipped);
  EXPECT_GT(compared, 200u);
}

TEST_F(Golden, TeacherForcedLossIsWithinTheLimitOfBf16) {
  const nlohmann::json golden = load("perplexity.json");
  const auto tokens = golden["ids"].get<std::vector<TokenId>>();
  const auto expected = golden["nll"].get<std::vector<double>>();
  const auto best = golden["argmax_ids"].get<std::vector<TokenId>>();
  const auto slots = slots_from(0, 16);
  ResidentGate gate;
  double nll = 0;
  size_t agreed = 0;
  constexpr size_t kRows = 128;
  for (size_t at = 0; at < tokens.size(); at += kRows) {
    const Part part{.tokens = {tokens.begin() + static_cast<std::ptrdiff_t>(at),
                               tokens.begin() + static_cast<std::ptrdiff_t>(std::min(at + kRows, tokens.size()))},
                    .position_first = static_cast<uint32_t>(at),
                    .slots = slots,
                    .all_logits = true};
    const auto rows = harness->forward({&part, 1}, gate);
    for (size_t row = 0; row < rows.size() && at + row < expected.size(); ++row) {
      const std::vector<float>& logits = rows[row];
      const auto highest = std::max_element(logits.begin(), logits.end());
      double sum = 0;
      for (const float logit : logits) sum += std::exp(static_cast<double>(logit) - *highest);
      nll += *highest + std::log(sum) - logits[tokens[at + row + 1]];
      agreed += static_cast<TokenId>(highest - logits.begin()) == best[at + row];
    }
  }
  const double mean = nll / static_cast<double>(expected.size());
  const double agreement = static_cast<double>(agreed) / static_cast<double>(expected.size());
  fmt::print("mean NLL {:.6f} (reference {:.6f}), top-1 agreement {:.4f}\n", mean, golden["mean_nll"].get<double>(),
             agreement);
  EXPECT_NEAR(mean, golden["mean_nll"].get<double>(), kMeanNllLimit);
  EXPECT_GE(agreement, kTop1Agreement);
}

}  // namespace
}  // namespace spillway
