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
constexpr double kInt8Top1Agreement = 0.97, kInt8MeanKlLimit = 0.0025;  // guards, set after 0.9765 and 0.0018 were seen
constexpr uint32_t kRows = 128;                                         // of teacher-forced text, computed at once

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
        *file, DecoderHarness::Limits{.isa = available_isa_levels().back(), .threads = 2, .logit_rows_max = kRows});
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

// Logits of the tokens from `at` on, after those before it, which the harness has had.
std::vector<std::vector<float>> teacher_forced(DecoderHarness& harness, const std::vector<TokenId>& tokens, size_t at) {
  const Part part{.tokens = {tokens.begin() + static_cast<std::ptrdiff_t>(at),
                             tokens.begin() + static_cast<std::ptrdiff_t>(std::min(at + kRows, tokens.size()))},
                  .position_first = static_cast<uint32_t>(at),
                  .slots = slots_from(0, 16),
                  .all_logits = true};
  ResidentGate gate;
  return harness.forward({&part, 1}, gate);
}

double log_sum_exp(const std::vector<float>& logits) {
  const double highest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - highest);
  return highest + std::log(sum);
}

// KL divergence of the distribution that `other` stands for from that of `logits`.
double divergence(const std::vector<float>& logits, const std::vector<float>& other) {
  const double norm = log_sum_exp(logits), other_norm = log_sum_exp(other);
  double sum = 0;
  for (size_t i = 0; i < logits.size(); ++i)
    sum += std::exp(logits[i] - norm) * ((logits[i] - norm) - (other[i] - other_norm));
  return sum;
}

// The golden text: how well a harness foretells it, beside the f64 reference.
struct GoldenText {
  const nlohmann::json golden = load("perplexity.json");
  const std::vector<TokenId> tokens = golden["ids"].get<std::vector<TokenId>>();
  const std::vector<TokenId> best = golden["argmax_ids"].get<std::vector<TokenId>>();
  double nll = 0;
  size_t agreed = 0;

  void add(size_t at, const std::vector<float>& logits) {
    nll += log_sum_exp(logits) - logits[tokens[at + 1]];
    agreed += static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin()) == best[at];
  }
  void expect_within_limits(const char* name, double agreement_least) const {
    const double mean = nll / static_cast<double>(best.size()), reference = golden["mean_nll"].get<double>();
    const double agreement = static_cast<double>(agreed) / static_cast<double>(best.size());
    fmt::print("{}: mean NLL {:.6f} (reference {:.6f}), top-1 agreement {:.4f}\n", name, mean, reference, agreement);
    EXPECT_NEAR(mean, reference, kMeanNllLimit) << name;
    EXPECT_GE(agreement, agreement_least) << name;
  }
};

TEST_F(Golden, TeacherForcedLossIsWithinTheLimitsAlsoWithInt8Kv) {
  DecoderHarness int8(*file, {.isa = available_isa_levels().back(),
                              .threads = 2,
                              .logit_rows_max = kRows,
                              .slot_count = 16,
                              .kv = KvDtype::kInt8});
  GoldenText plain, coded;
  const size_t count = plain.best.size();
  double kl = 0;
  for (size_t at = 0; at < plain.tokens.size(); at += kRows) {
    const auto rows = teacher_forced(*harness, plain.tokens, at), int8_rows = teacher_forced(int8, plain.tokens, at);
    for (size_t row = 0; row < rows.size() && at + row < count; ++row) {
      plain.add(at + row, rows[row]);
      coded.add(at + row, int8_rows[row]);
      kl += divergence(rows[row], int8_rows[row]) / static_cast<double>(count);
    }
  }
  plain.expect_within_limits("bf16 KV", kTop1Agreement);
  coded.expect_within_limits("int8 KV", kInt8Top1Agreement);
  fmt::print("mean KL divergence of int8 KV from bf16 KV: {:.6f}\n", kl);
  EXPECT_LT(kl, kInt8MeanKlLimit);
}

}  // namespace
}  // namespace spillway
