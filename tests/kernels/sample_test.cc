#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/cpu/philox.h"
#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using SampleTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(SampleTest);

std::vector<SampleRow> sample(Backend& backend, std::vector<float>& logits, std::vector<SampleRow> rows) {
  const auto count = static_cast<uint32_t>(rows.size());
  backend.sample({view(logits, {count, static_cast<uint32_t>(logits.size() / count)}), rows});
  return rows;
}

SampleRow row_of(float temperature, uint64_t seed, uint32_t choice, uint32_t position) {
  SampleRow row;
  row.params = {.temperature = temperature, .seed = seed, .choice = choice};
  row.position = position;
  return row;
}

TEST_P(SampleTest, GreedyTakesTheLowestIdAmongEquals) {
  const auto backend = make();
  for (const uint32_t vocab : {1u, 5u, 16u, 17u, 1000u}) {
    for (const uint32_t best : {0u, vocab / 2, vocab - 1}) {
      std::vector<float> logits(vocab, -3.5f);
      logits[best] = logits[vocab - 1] = 2.25f;
      EXPECT_EQ(sample(*backend, logits, {SampleRow{}})[0].token, best) << vocab;
    }
  }
  std::vector<float> equal(100, -1e30f);
  EXPECT_EQ(sample(*backend, equal, {SampleRow{}})[0].token, 0u);
}

TEST_P(SampleTest, NotANumberOrInfiniteIsReported) {
  const auto backend = make();
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                          -std::numeric_limits<float>::infinity()}) {
    for (const uint32_t at : {0u, 31u, 99u}) {
      std::vector<float> logits(200, 0.5f);
      logits[100 + at] = bad;
      const std::vector<SampleRow> rows = sample(*backend, logits, {row_of(1, 1, 0, 0), row_of(1, 1, 0, 0)});
      EXPECT_TRUE(rows[0].finite);
      EXPECT_FALSE(rows[1].finite);
    }
  }
}

TEST_P(SampleTest, DrawsFollowTheSoftmax) {  // chi-square over 8 outcomes, 7 degrees of freedom: 24.3 at 0.1 %
  const auto backend = make();
  std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, -0.5f, 1.5f, -2.0f};
  constexpr uint32_t kDraws = 20'000;
  for (const float temperature : {0.5f, 1.0f, 2.0f}) {
    std::vector<double> expected(8), seen(8);
    double sum = 0;
    for (uint32_t id = 0; id < 8; ++id) sum += expected[id] = std::exp(logits[id] / temperature);
    for (uint32_t position = 0; position < kDraws; ++position) {
      ++seen[sample(*backend, logits, {row_of(temperature, 42, 0, position)})[0].token];
    }
    double chi_square = 0;
    for (uint32_t id = 0; id < 8; ++id) {
      const double count = expected[id] / sum * kDraws;
      chi_square += (seen[id] - count) * (seen[id] - count) / count;
    }
    EXPECT_LT(chi_square, 24.3) << temperature;
    EXPECT_GT(chi_square, 0.6) << "too even to be drawn";
  }
}

TEST_P(SampleTest, DrawIsTheInverseOfTheCdfInIdOrder) {
  const auto backend = make();
  std::vector<float> logits = Values(4).f32(1000);
  for (float& logit : logits) logit *= 4;
  for (uint32_t position = 0; position < 200; ++position) {
    const auto random = cpu::philox4x32({3, position, 0, 0}, {0x89abcdefu, 0x01234567u});
    const double u = static_cast<double>((uint64_t{random[0]} << 32 | random[1]) >> 11) * 0x1p-53;
    double sum = 0, below = 0;
    for (const float logit : logits) sum += std::exp(logit / 0.7f);
    uint32_t expected = 0;
    while ((below += std::exp(logits[expected] / 0.7f)) <= u * sum) ++expected;
    const SampleRow row = row_of(0.7f, 0x0123456789abcdefull, 3, position);
    EXPECT_EQ(sample(*backend, logits, {row})[0].token, expected);
  }
}

TEST_P(SampleTest, TokenDependsOnSeedChoiceAndPositionOnly) {
  std::vector<float> one = Values(5).f32(3000), batch = Values(6).f32(4 * 3000);
  std::copy(one.begin(), one.end(), batch.begin() + 2 * 3000);
  const SampleRow row = row_of(1.5f, 9, 1, 77);
  const TokenId alone = sample(*make(1), one, {row})[0].token;
  EXPECT_EQ(sample(*make(2), batch, {row_of(1, 2, 0, 5), SampleRow{}, row, row_of(2, 9, 1, 77)})[2].token, alone);
  const auto backend = make();
  uint32_t differing = 0;
  for (const SampleRow& other : {row_of(1.5f, 10, 1, 77), row_of(1.5f, 9, 2, 77), row_of(1.5f, 9, 1, 78)}) {
    differing += sample(*backend, one, {other})[0].token != alone ? 1 : 0;
  }
  EXPECT_EQ(differing, 3u);
}

TEST_P(SampleTest, ExtremeTemperaturesStayInTheVocabulary) {
  const auto backend = make();
  std::vector<float> logits = Values(7).f32(1000);
  logits[123] = 5;
  EXPECT_EQ(sample(*backend, logits, {row_of(1e-30f, 1, 0, 0)})[0].token, 123u);
  EXPECT_LT(sample(*backend, logits, {row_of(std::numeric_limits<float>::infinity(), 1, 0, 0)})[0].token, 1000u);
  EXPECT_EQ(sample(*backend, logits, {row_of(-1, 1, 0, 0)})[0].token, 123u) << "not above 0 is greedy";
}

TEST_P(SampleTest, DigestCoversEveryBitOfTheRow) {
  const auto backend = make();
  std::vector<float> logits = Values(8).f32(500);
  SampleRow row;
  row.digest = true;
  const uint64_t digest = sample(*backend, logits, {row})[0].logits_digest;
  EXPECT_EQ(sample(*backend, logits, {row})[0].logits_digest, digest);
  for (const uint32_t at : {0u, 250u, 499u}) {
    std::vector<float> changed = logits;
    changed[at] = std::bit_cast<float>(std::bit_cast<uint32_t>(changed[at]) ^ 1u);
    EXPECT_NE(sample(*backend, changed, {row})[0].logits_digest, digest);
  }
  EXPECT_EQ(sample(*backend, logits, {SampleRow{}})[0].logits_digest, 0u);
}

TEST(Philox, MatchesThePublishedVectors) {  // Random123 1.14, kat_vectors: philox 4x32 10
  using Words = std::array<uint32_t, 4>;
  EXPECT_EQ(cpu::philox4x32({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u}));
  EXPECT_EQ(cpu::philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
            (Words{0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu}));
  EXPECT_EQ(cpu::philox4x32({0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}, {0xa4093822u, 0x299f31d0u}),
            (Words{0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u}));
}

TEST_P(SampleTest, LogprobsAreTheLogSoftmaxOfTheRawLogits) {
  const auto backend = make();
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> logits(2 * 5003);
  for (float& one : logits) one = normal(random);
  logits[100] = logits[4000] = logits[77] = 19;  // equal: the lower id first
  SampleRow drawn = row_of(0.7f, 5, 0, 3), given;
  drawn.params.logit_bias = {{9, 100}};  // neither bias nor temperature is in what is told
  drawn.logprob_count = 6;
  given = {.logprob_count = 1 + kLogprobsMax, .given = true, .token = 4711};
  const std::vector<SampleRow> rows = sample(*backend, logits, {drawn, given});
  for (size_t row = 0; row < 2; ++row) {
    const std::span<const float> own(logits.data() + row * 5003, 5003);
    long double sum = 0;
    for (const float one : own) sum += std::exp(static_cast<long double>(one));
    const auto expected = [&](TokenId id) { return static_cast<double>(own[id] - std::log(sum)); };
    std::vector<TokenId> ids(own.size());
    std::iota(ids.begin(), ids.end(), TokenId{0});
    std::ranges::stable_sort(ids, [&](TokenId a, TokenId b) { return own[a] > own[b]; });
    const std::vector<TokenLogprob>& told = rows[row].logprobs;
    ASSERT_EQ(told.size(), row == 0 ? 6u : 21u);
    EXPECT_EQ(told[0].token, row == 0 ? 9u : 4711u);
    EXPECT_EQ(rows[row].token, told[0].token);
    for (size_t index = 0; index < told.size(); ++index) {
      if (index > 0) {
        EXPECT_EQ(told[index].token, ids[index - 1]) << row << " " << index;
      }
      EXPECT_NEAR(told[index].logprob, expected(told[index].token), 2e-6) << row << " " << index;
    }
  }
  EXPECT_EQ(rows[0].logprobs[1].token, 77u);
  std::vector<float> first(logits.begin(), logits.begin() + 5003);
  drawn.logprob_count = 3;
  const std::vector<TokenLogprob> cut = sample(*backend, first, {drawn})[0].logprobs;
  EXPECT_EQ(cut.at(1).token, 77u);
  EXPECT_EQ(cut.at(2).token, 100u) << "of three equal ones the two lower ids";
  std::vector<float> few = {1, 2};
  SampleRow all;
  all.logprob_count = 1 + kLogprobsMax;
  EXPECT_EQ(sample(*backend, few, {all})[0].logprobs.size(), 3u) << "no more than there are";
  EXPECT_TRUE(sample(*backend, few, {SampleRow{}})[0].logprobs.empty()) << "nobody asked";
}

}  // namespace
}  // namespace spillway
