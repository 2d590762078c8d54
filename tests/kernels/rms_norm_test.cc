#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using RmsNormTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(RmsNormTest);

std::vector<uint16_t> normalise(Backend& backend, std::vector<float>& x, std::vector<float>& weight, float epsilon) {
  const auto hidden = static_cast<uint32_t>(weight.size()), rows = static_cast<uint32_t>(x.size() / weight.size());
  std::vector<uint16_t> out(x.size());
  backend.rms_norm({view(x, {rows, hidden}), view(weight, {hidden}), epsilon, view(out, {rows, hidden})});
  return out;
}

TEST_P(RmsNormTest, MatchesF64) {
  const auto backend = make();
  for (const uint32_t hidden : {1u, 2u, 15u, 17u, 64u, 576u, 2049u}) {
    std::vector<float> x = Values(hidden).f32(size_t{3} * hidden), weight = Values(2).f32(hidden);
    for (uint32_t i = 0; i < hidden; ++i) x[i] *= 1e-3f;  // one small row: epsilon counts
    const std::vector<uint16_t> out = normalise(*backend, x, weight, 1e-5f);
    for (uint32_t row = 0; row < 3; ++row) {
      double sum = 0;
      for (uint32_t i = 0; i < hidden; ++i) sum += double{x[row * hidden + i]} * x[row * hidden + i];
      for (uint32_t i = 0; i < hidden; ++i) {
        const double expected = x[row * hidden + i] / std::sqrt(sum / hidden + 1e-5f) * weight[i];
        ASSERT_NEAR(f32_from_bf16(out[row * hidden + i]), expected, std::abs(expected) * 0x1.01p-8) << hidden;
      }
    }
  }
}

TEST_P(RmsNormTest, RowBitsDependNeitherOnRowsNorThreads) {
  std::vector<float> x = Values(3).f32(40 * 577), weight = Values(4).f32(577);
  const std::vector<uint16_t> whole = normalise(*make(2), x, weight, 1e-5f);
  const auto backend = make(1);
  for (uint32_t row = 0; row < 40; ++row) {
    std::vector<float> one(x.begin() + row * 577, x.begin() + (row + 1) * 577);
    ASSERT_TRUE(same_bits<uint16_t>(normalise(*backend, one, weight, 1e-5f), std::span(whole).subspan(row * 577, 577)));
  }
}

}  // namespace
}  // namespace spillway
