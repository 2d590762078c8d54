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
// Of int8 activations: divergence from bf16 ones in nats, and agreement with the reference's argmax.
constexpr double kInt8MeanDivergence = 7e-3, kInt8Top1Agreement = 0.94;

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

constexpr size_t kTeacherRows = 128;

// Logits after tokens `at` and following, those before them being in the KV memory.
std::vector<std::vector<float>> teacher_forced(DecoderHarness& decoder, const std::vector<TokenId>& tokens, size_t at) {
  const auto first = tokens.begin() + static_cast<std::ptrdiff_t>(at);
  const Part part{.tokens = {first, first + static_cast<std::ptrdiff_t>(std::min(kTeacherRows, tokens.size() - at))},
                  .position_first = static_cast<uint32_t>(at),
                  .slots = slots_from(0, 16),
                  .all_logits = true};
  ResidentGate gate;
  return decoder.forward({&part, 1}, gate);
}

TokenId argmax(const std::vector<float>& logits) {
  return static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
}

std::vector<double> log_softmax(const std::vector<float>& logits) {
  const double highest = *std::ranges::max_element(logits);
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  std::vector<double> out;
  for (const float logit : logits) out.push_back(logit - highest - std::log(sum));
  return out;
}

TEST_F(Golden, TeacherForcedLossIsWithinTheLimitOfBf16) {
  const nlohmann::json golden = load("perplexity.json");
  const auto tokens = golden["ids"].get<std::vector<TokenId>>();
  const auto expected = golden["nll"].get<std::vector<double>>();
  const auto best = golden["argmax_ids"].get<std::vector<TokenId>>();
  double nll = 0;
  size_t agreed = 0;
  for (size_t at = 0; at < tokens.size(); at += kTeacherRows) {
    const auto rows = teacher_forced(*harness, tokens, at);
    for (size_t row = 0; row < rows.size() && at + row < expected.size(); ++row) {
      nll -= log_softmax(rows[row])[tokens[at + row + 1]];
      agreed += argmax(rows[row]) == best[at + row];
    }
  }
  const double mean = nll / static_cast<double>(expected.size());
  const double agreement = static_cast<double>(agreed) / static_cast<double>(expected.size());
  fmt::print("mean NLL {:.6f} (reference {:.6f}), top-1 agreement {:.4f}\n", mean, golden["mean_nll"].get<double>(),
             agreement);
  EXPECT_NEAR(mean, golden["mean_nll"].get<double>(), kMeanNllLimit);
  EXPECT_GE(agreement, kTop1Agreement);
}

TEST_F(Golden, Int8ActivationsAreWithinTheirLimit) {
  constexpr Precision kInt8{.activations = Activations::kInt8};
  DecoderHarness int8(
      *file, {.isa = available_isa_levels(kInt8).back(), .threads = 2, .logit_rows_max = 128, .precision = kInt8});
  const nlohmann::json golden = load("perplexity.json");
  const auto tokens = golden["ids"].get<std::vector<TokenId>>();
  const auto best = golden["argmax_ids"].get<std::vector<TokenId>>();
  double divergence = 0, greatest = 0, nll = 0;
  size_t agreed = 0;
  for (size_t at = 0; at < tokens.size(); at += kTeacherRows) {
    const auto of_bf16 = teacher_forced(*harness, tokens, at), of_int8 = teacher_forced(int8, tokens, at);
    for (size_t row = 0; row < of_int8.size() && at + row < best.size(); ++row) {
      const std::vector<double> p = log_softmax(of_bf16[row]), q = log_softmax(of_int8[row]);
      double of_row = 0;
      for (size_t i = 0; i < p.size(); ++i) of_row += std::exp(p[i]) * (p[i] - q[i]);
      divergence += of_row;
      greatest = std::max(greatest, of_row);
      nll -= q[tokens[at + row + 1]];
      agreed += argmax(of_int8[row]) == best[at + row];
    }
  }
  const auto count = static_cast<double>(best.size());
  fmt::print("KL mean {:.6f}, greatest {:.4f}; mean NLL {:.6f} (reference {:.6f}), top-1 agreement {:.4f}\n",
             divergence / count, greatest, nll / count, golden["mean_nll"].get<double>(),
             static_cast<double>(agreed) / count);
  EXPECT_LE(divergence / count, kInt8MeanDivergence);
  EXPECT_GE(static_cast<double>(agreed) / count, kInt8Top1Agreement);
}

}  // namespace
}  // namespace spillway
