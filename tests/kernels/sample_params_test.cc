// Bias, penalties and cuts of the sampler, against a plain reference written from the contract alone.
#include <limits>
#include <map>

#include "kernels/cpu/philox.h"
#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using SampleParamsTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(SampleParamsTest);

constexpr float kNever = -std::numeric_limits<float>::infinity();

SampleRow sample_row(Backend& backend, std::vector<float> logits, SampleRow row) {
  backend.sample({view(logits, {1, static_cast<uint32_t>(logits.size())}), {&row, 1}});
  return row;
}
TokenId sample(Backend& backend, const std::vector<float>& logits, const SampleRow& row) {
  return sample_row(backend, logits, row).token;
}
SampleRow row_of(const SamplingParams& params, uint32_t position = 0) {
  SampleRow row;
  row.params = params;
  row.position = position;
  return row;
}
SampleRow row_of(const SamplingParams& params, std::span<const TokenId> history, uint32_t prompt_tokens) {
  SampleRow row = row_of(params, static_cast<uint32_t>(history.size()));
  row.history = history;
  row.prompt_tokens = prompt_tokens;
  return row;
}

// Logits after bias and penalties, one id at a time.
std::vector<double> reference_logits(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<double> out;
  for (TokenId id = 0; id < logits.size(); ++id) {
    double logit = logits[id];
    for (const LogitBias& one : row.params.logit_bias) logit += one.token == id ? double{one.bias} : 0.0;
    const auto generated = row.history.subspan(row.prompt_tokens);
    const auto count = static_cast<double>(std::count(generated.begin(), generated.end(), id));
    if (std::count(row.history.begin(), row.history.end(), id) > 0) {
      const double p = row.params.repetition_penalty;
      logit = logit > 0 ? logit / p : logit * p;
    }
    logit -= count * double{row.params.frequency_penalty};
    logit -= count > 0 ? double{row.params.presence_penalty} : 0.0;
    out.push_back(logit);
  }
  return out;
}

struct Outcome {
  TokenId id;
  double probability;
};

// What may be drawn, with its probability among what may be drawn; by id.
std::vector<Outcome> reference_outcomes(const std::vector<double>& logits, const SamplingParams& params) {
  std::vector<Outcome> ranked;
  const double top = *std::max_element(logits.begin(), logits.end());
  for (TokenId id = 0; id < logits.size(); ++id)
    ranked.push_back({id, std::exp((logits[id] - top) / double{params.temperature})});
  std::stable_sort(ranked.begin(), ranked.end(),
                   [&](const Outcome& a, const Outcome& b) { return logits[a.id] > logits[b.id]; });
  if (params.top_k > 0 && params.top_k < ranked.size()) ranked.resize(params.top_k);
  double sum = 0, above = 0;
  for (const Outcome& one : ranked) sum += one.probability;
  std::vector<Outcome> kept;
  for (const Outcome& one : ranked) {
    if (params.top_p < 1 && above >= double{params.top_p} * sum) break;
    above += one.probability;
    if (one.probability >= double{params.min_p} * ranked[0].probability) kept.push_back(one);
  }
  std::sort(kept.begin(), kept.end(), [](const Outcome& a, const Outcome& b) { return a.id < b.id; });
  sum = 0;
  for (const Outcome& one : kept) sum += one.probability;
  for (Outcome& one : kept) one.probability /= sum;
  return kept;
}

TokenId reference_token(const std::vector<float>& logits, const SampleRow& row) {
  const std::vector<double> adjusted = reference_logits(logits, row);
  if (row.params.temperature == 0)
    return static_cast<TokenId>(std::max_element(adjusted.begin(), adjusted.end()) - adjusted.begin());
  const auto random =
      cpu::philox4x32({row.params.choice, row.position, 0, 0},
                      {static_cast<uint32_t>(row.params.seed), static_cast<uint32_t>(row.params.seed >> 32)});
  const double u = static_cast<double>((uint64_t{random[0]} << 32 | random[1]) >> 11) * 0x1p-53;
  double below = 0;
  TokenId token = 0;
  for (const Outcome& one : reference_outcomes(adjusted, row.params)) {
    token = one.id;
    if ((below += one.probability) > u) break;
  }
  return token;
}

// Any parameters, each off about half of the time.
SamplingParams draw_params(Values& values, uint32_t vocab) {
  const auto half = [&] { return values.below(2) == 0; };
  SamplingParams params;
  params.temperature = values.below(5) == 0 ? 0.0f : 1.1f + values.next();
  params.seed = values.below(1000);
  if (half()) params.top_k = values.below(vocab + 5);
  if (half()) params.top_p = 0.5005f + 0.499f * values.next();
  if (half()) params.min_p = 0.3f + 0.3f * values.next();
  if (half()) params.presence_penalty = 2 * values.next();
  if (half()) params.frequency_penalty = 2 * values.next();
  if (half()) params.repetition_penalty = 1.05f + 0.9f * values.next();
  for (uint32_t count = half() ? values.below(20) : 0; count > 0; --count)
    params.logit_bias.push_back({values.below(vocab), values.below(8) == 0 ? kNever : 5 * values.next()});
  return params;
}

TEST_P(SampleParamsTest, AnyMixtureDrawsAsThePlainReference) {
  const auto backend = make();
  Values values(11);
  for (int round = 0; round < 2000; ++round) {
    const uint32_t vocab = 9 + values.below(200);
    std::vector<float> logits = values.f32(vocab);
    // Coarse steps in half of the rounds: many ties.
    for (float& logit : logits) logit = round % 2 == 0 ? 6 * logit : std::floor(4 * logit) / 2;
    const SamplingParams params = draw_params(values, vocab);
    std::vector<TokenId> history(values.below(60));
    for (TokenId& token : history) token = values.below(vocab);
    const SampleRow row = row_of(params, history, values.below(static_cast<uint32_t>(history.size()) + 1));
    ASSERT_EQ(sample(*backend, logits, row), reference_token(logits, row)) << round;
  }
}

TEST_P(SampleParamsTest, DrawsFollowTheSoftmaxOfWhatIsKept) {
  const auto backend = make();
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, -0.5f, 1.5f, -2.0f};
  const std::vector<TokenId> history = {3, 1, 3};
  constexpr uint32_t kDraws = 20'000;
  const SamplingParams cases[] = {
      {.temperature = 1, .seed = 3, .top_k = 5},
      {.temperature = 1, .seed = 3, .top_p = 0.8f},
      {.temperature = 2, .seed = 3, .min_p = 0.3f},
      {.temperature = 1, .seed = 3, .presence_penalty = 1, .frequency_penalty = 0.5f, .repetition_penalty = 1.3f},
      {.temperature = 1, .seed = 3, .top_k = 6, .top_p = 0.9f, .min_p = 0.05f, .logit_bias = {{7, 4}, {3, -1}}}};
  for (const SamplingParams& params : cases) {
    SampleRow row = row_of(params, history, 1);
    std::map<TokenId, double> seen;
    for (row.position = 0; row.position < kDraws; ++row.position) ++seen[sample(*backend, logits, row)];
    const std::vector<Outcome> outcomes = reference_outcomes(reference_logits(logits, row), params);
    ASSERT_LE(seen.size(), outcomes.size());
    ASSERT_GE(outcomes.size(), 4u);
    double chi_square = 0;
    for (const Outcome& one : outcomes) {
      const double count = one.probability * kDraws;
      chi_square += (seen[one.id] - count) * (seen[one.id] - count) / count;
    }
    EXPECT_LT(chi_square, 24.3);  // 7 degrees of freedom or fewer, at 0.1 %
  }
}

// Ids drawn over many positions.
std::vector<TokenId> drawn(Backend& backend, const std::vector<float>& logits, const SamplingParams& params) {
  std::map<TokenId, uint32_t> seen;
  for (uint32_t position = 0; position < 300; ++position) ++seen[sample(backend, logits, row_of(params, position))];
  std::vector<TokenId> ids;
  for (const auto& [id, count] : seen) ids.push_back(id);
  return ids;
}

TEST_P(SampleParamsTest, OfEqualsAtTheCutTheLowerIdsStay) {
  const auto backend = make();
  const std::vector<float> equal(4, 1.5f), two_levels = {0, 3, 0, 3, 3, 0};
  using Ids = std::vector<TokenId>;
  EXPECT_EQ(drawn(*backend, equal, {.temperature = 1, .top_k = 2}), (Ids{0, 1}));
  EXPECT_EQ(drawn(*backend, equal, {.temperature = 1, .top_p = 0.5f}), (Ids{0, 1}));
  EXPECT_EQ(drawn(*backend, equal, {.temperature = 1, .top_p = 0.51f}), (Ids{0, 1, 2}));
  EXPECT_EQ(drawn(*backend, equal, {.temperature = 1, .min_p = 1}), (Ids{0, 1, 2, 3}));
  EXPECT_EQ(drawn(*backend, two_levels, {.temperature = 1, .top_k = 2}), (Ids{1, 3}));
  EXPECT_EQ(drawn(*backend, two_levels, {.temperature = 9, .top_k = 4}), (Ids{0, 1, 3, 4}));
  EXPECT_EQ(drawn(*backend, two_levels, {.temperature = 9, .min_p = 1}), (Ids{1, 3, 4}));
  EXPECT_EQ(drawn(*backend, two_levels, {.temperature = 9, .top_p = 1e-30f}), (Ids{1}));
}

TEST_P(SampleParamsTest, CutsThatRemoveNothingChangeNothing) {
  const auto backend = make();
  const std::vector<float> logits = Values(12).f32(1000);
  for (uint32_t position = 0; position < 100; ++position) {
    const TokenId plain = sample(*backend, logits, row_of({.temperature = 0.9f}, position));
    EXPECT_EQ(sample(*backend, logits, row_of({.temperature = 0.9f, .top_k = 1000}, position)), plain);
    EXPECT_EQ(sample(*backend, logits, row_of({.temperature = 0.9f, .min_p = 1e-9f}, position)), plain);
    EXPECT_EQ(sample(*backend, logits, row_of({.temperature = 0.9f, .logit_bias = {{5, 0}}}, position)), plain);
  }
}

TEST_P(SampleParamsTest, AHundredForcesMinusAHundredForbidsAndInfinityAlways) {
  const auto backend = make();
  const std::vector<float> logits = Values(13).f32(50);
  for (const float temperature : {0.0f, 1.0f}) {
    EXPECT_EQ(drawn(*backend, logits, {.temperature = temperature, .logit_bias = {{17, 100}}}),
              std::vector<TokenId>{17});
    for (const float bias : {-100.0f, kNever}) {
      SamplingParams params{.temperature = temperature};
      for (TokenId id = 0; id < 50; ++id)
        if (id != 31) params.logit_bias.push_back({id, bias});
      EXPECT_EQ(drawn(*backend, logits, params), std::vector<TokenId>{31});
      params.logit_bias.push_back({31, kNever});
      params.top_k = 50;
      if (bias == kNever) {
        EXPECT_EQ(drawn(*backend, logits, params), std::vector<TokenId>{0}) << "nothing is left";
      }
    }
  }
}

TEST_P(SampleParamsTest, PenaltiesCountWhatTheyAreSaidToCount) {
  const auto backend = make();
  const std::vector<float> logits = {3.0f, 2.9f, -1.0f}, below_zero = {-1.0f, -1.05f};
  const std::vector<TokenId> once = {0}, twice = {0, 2, 0};
  const auto greedy = [&](const SamplingParams& params, std::span<const TokenId> history, uint32_t prompt_tokens) {
    return sample(*backend, logits, row_of(params, history, prompt_tokens));
  };
  EXPECT_EQ(greedy({.presence_penalty = 0.15f}, once, 0), 1u);
  EXPECT_EQ(greedy({.presence_penalty = 0.15f}, once, 1), 0u) << "the prompt does not count";
  EXPECT_EQ(greedy({.presence_penalty = 0.06f}, twice, 0), 0u) << "how often does not count";
  EXPECT_EQ(greedy({.frequency_penalty = 0.06f}, once, 0), 0u);
  EXPECT_EQ(greedy({.frequency_penalty = 0.06f}, twice, 0), 1u);
  EXPECT_EQ(greedy({.frequency_penalty = 0.06f}, twice, 1), 0u);
  EXPECT_EQ(greedy({.presence_penalty = -2}, std::vector<TokenId>{1}, 0), 1u);
  EXPECT_EQ(greedy({.repetition_penalty = 1.1f}, once, 1), 1u) << "the prompt counts";
  EXPECT_EQ(greedy({.repetition_penalty = 1.02f}, twice, 1), 0u) << "how often does not count";
  EXPECT_EQ(sample(*backend, below_zero, row_of({.repetition_penalty = 1.1f}, once, 0)), 1u);
  EXPECT_EQ(sample(*backend, below_zero, row_of({.repetition_penalty = 0.9f}, std::vector<TokenId>{1}, 0)), 1u);
}

TEST_P(SampleParamsTest, DigestAndFinitenessAreThoseOfTheRawLogits) {
  const auto backend = make();
  const std::vector<float> logits = Values(14).f32(100), huge(100, 3e38f);
  const std::vector<TokenId> history = {5};
  SampleRow plain, full = row_of({.repetition_penalty = 1e-30f, .logit_bias = {{3, 50}}}, history, 0);
  plain.digest = full.digest = true;
  EXPECT_EQ(sample_row(*backend, logits, full).logits_digest, sample_row(*backend, logits, plain).logits_digest);
  const SampleRow answer = sample_row(*backend, huge, full);
  EXPECT_TRUE(answer.finite);
  EXPECT_EQ(answer.token, 5u) << "3e38 / 1e-30 does not overflow";
}

TEST_P(SampleParamsTest, ARowDoesNotDependOnItsBatchOrThread) {
  constexpr uint32_t kRows = 24, kVocab = 1500;
  Values values(15);
  std::vector<float> logits = values.f32(kRows * kVocab);
  std::vector<TokenId> history(100);
  for (TokenId& token : history) token = values.below(kVocab);
  std::vector<SampleRow> rows;
  for (uint32_t row = 0; row < kRows; ++row) rows.push_back(row_of(draw_params(values, kVocab), history, 4 * row));
  std::vector<SampleRow> batch = rows;
  make(3)->sample({view(logits, {kRows, kVocab}), batch});
  const auto backend = make(1);
  for (uint32_t row = 0; row < kRows; ++row) {
    const std::vector<float> alone(logits.begin() + row * kVocab, logits.begin() + (row + 1) * kVocab);
    EXPECT_EQ(sample(*backend, alone, rows[row]), batch[row].token);
  }
}

}  // namespace
}  // namespace spillway
