#include <limits>

#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using GemmTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(GemmTest);

// One product's inputs; weights [n, k] are kept as stored, in f32.
struct Case {
  uint32_t m, n, k;
  std::vector<uint16_t> a;
  std::vector<float> weight;
  Case(uint32_t rows, uint32_t features, uint32_t depth, uint32_t seed) : m(rows), n(features), k(depth) {
    Values values(seed);
    a = values.bf16(size_t{m} * k);
    weight = values.f32(size_t{n} * k);
  }
  double reference(uint32_t row, uint32_t feature) const {
    double sum = 0;
    for (uint32_t i = 0; i < k; ++i) {
      sum += double{f32_from_bf16(a[size_t{row} * k + i])} * rounded(weight[size_t{feature} * k + i]);
    }
    return sum;
  }
  // Sums of k products of U(-1, 1) have rms sqrt(k) / 3.
  double tolerance() const { return 4 * 0x1p-23 * std::sqrt(k) * std::max(1.0, std::sqrt(k) / 3); }
};

std::vector<float> multiply(Backend& backend, Case& c, const Weight& weight, std::vector<float> out,
                            Epilogue epilogue) {
  backend.gemm({view(c.a, {c.m, c.k}), &weight, epilogue, view(out, {c.m, c.n})});
  return out;
}

double silu(double x) { return x / (1 + std::exp(-x)); }

TEST_P(GemmTest, ProductMatchesF64ForAwkwardShapes) {
  const auto backend = make();
  const uint32_t shapes[][3] = {{1, 1, 2},     {1, 64, 64},   {2, 65, 3},    {3, 63, 7},
                                {5, 17, 33},   {6, 128, 96},  {7, 129, 576}, {8, 200, 100},
                                {13, 64, 128}, {31, 100, 48}, {64, 1, 256},  {67, 96, 1536}};
  for (const auto& [m, n, k] : shapes) {
    Case c(m, n, k, m * 1000 + n);
    const FileTensor tensor = f32_tensor(c.weight, n, k);
    const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
    const std::vector<float> out =
        multiply(*backend, c, weight, std::vector<float>(size_t{m} * n, 7.0f), Epilogue::kNone);
    for (uint32_t row = 0; row < m; ++row) {
      for (uint32_t feature = 0; feature < n; ++feature) {
        ASSERT_NEAR(out[size_t{row} * n + feature], c.reference(row, feature), c.tolerance())
            << m << " x " << n << " x " << k << " at " << row << ", " << feature;
      }
    }
  }
}

// The product of two bf16 is exact in f32, so a fused chain rounds where the scalar one does: over ascending k.
TEST(GemmLevels, FusedProductsHaveTheBitsOfTheScalarChain) {
  const std::vector<std::string> levels = available_isa_levels();
  if (std::find(levels.begin(), levels.end(), "avx2") == levels.end()) GTEST_SKIP() << "this machine has no AVX2";
  for (const uint32_t m : {1u, 2u, 3u, 4u, 5u, 6u, 8u, 13u, 100u}) {
    for (const uint32_t k : {1u, 2u, 127u, 128u, 129u, 576u, 1000u}) {
      Case c(m, 70, k, m * 1000 + k);
      const FileTensor tensor = f32_tensor(c.weight, c.n, c.k);
      std::vector<float> products[2];
      for (size_t i = 0; i < 2; ++i) {
        const auto backend = make_backend({i == 0 ? "scalar" : "avx2", 1});
        const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
        products[i] = multiply(*backend, c, weight, std::vector<float>(size_t{m} * c.n), Epilogue::kNone);
      }
      ASSERT_TRUE(same_bits<float>(products[0], products[1])) << m << " rows, depth " << k;
    }
  }
}

TEST_P(GemmTest, OnesGiveExactlyTheDepth) {
  const auto backend = make();
  for (const uint32_t k : {1u, 2u, 575u, 576u, 1536u}) {
    std::vector<uint16_t> a(size_t{9} * k, bf16_from_f32(1));
    std::vector<float> ones(size_t{70} * k, 1), out(9 * 70);
    const FileTensor tensor = f32_tensor(ones, 70, k);
    const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
    backend->gemm({view(a, {9, k}), &weight, Epilogue::kNone, view(out, {9, 70})});
    for (const float value : out) ASSERT_EQ(value, static_cast<float>(k));
  }
}

TEST_P(GemmTest, ResidualIsAddedLast) {
  const auto backend = make();
  Case c(9, 96, 160, 1);
  const FileTensor tensor = f32_tensor(c.weight, c.n, c.k);
  const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
  const std::vector<float> residual = Values(2).f32(size_t{c.m} * c.n);
  const std::vector<float> product =
      multiply(*backend, c, weight, std::vector<float>(residual.size()), Epilogue::kNone);
  const std::vector<float> sum = multiply(*backend, c, weight, residual, Epilogue::kAddResidual);
  for (size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], residual[i] + product[i]);
}

TEST_P(GemmTest, SwiGluMatchesF64) {
  const auto backend = make();
  for (const uint32_t features : {1u, 16u, 40u, 96u}) {
    Case gate(11, features, 130, 3), up(11, features, 130, 4);
    up.a = gate.a;
    const FileTensor tensors[] = {f32_tensor(gate.weight, features, gate.k), f32_tensor(up.weight, features, up.k)};
    const Weight weight = backend->pack(tensors, PackOrder::kGateUp);
    std::vector<uint16_t> out(size_t{gate.m} * features);
    backend->gemm({view(gate.a, {gate.m, gate.k}), &weight, Epilogue::kSwiGlu, view(out, {gate.m, features})});
    for (uint32_t row = 0; row < gate.m; ++row) {
      for (uint32_t f = 0; f < features; ++f) {
        const double expected = silu(gate.reference(row, f)) * up.reference(row, f);
        ASSERT_NEAR(f32_from_bf16(out[size_t{row} * features + f]), expected, std::abs(expected) * 0x1p-8 + 1e-4);
      }
    }
  }
}

TEST_P(GemmTest, SwiGluSurvivesLargeGates) {
  const auto backend = make();
  for (const float gate : {-30000.0f, -200.0f, -90.0f, 0.0f, 90.0f, 200.0f, 30000.0f}) {
    std::vector<uint16_t> a = {bf16_from_f32(1), 0};
    const std::vector<float> gates = {gate, 0}, ups = {1, 0};
    const FileTensor tensors[] = {f32_tensor(gates, 1, 2), f32_tensor(ups, 1, 2)};
    const Weight weight = backend->pack(tensors, PackOrder::kGateUp);
    std::vector<uint16_t> out(1);
    backend->gemm({view(a, {1, 2}), &weight, Epilogue::kSwiGlu, view(out, {1, 1})});
    EXPECT_NEAR(f32_from_bf16(out[0]), silu(rounded(gate)), std::abs(gate) * 0x1p-8 + 1e-30) << gate;
  }
}

TEST_P(GemmTest, SwiGluKeepsNanAndInfinity) {
  const auto backend = make();
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> gates = {kNan, 1, kInf, -1, 1}, ups = {1, kNan, 1, kInf, 1};
  const FileTensor tensors[] = {f32_tensor(gates, 5, 1), f32_tensor(ups, 5, 1)};
  const Weight weight = backend->pack(tensors, PackOrder::kGateUp);
  std::vector<uint16_t> a = {bf16_from_f32(1)}, out(5);
  backend->gemm({view(a, {1, 1}), &weight, Epilogue::kSwiGlu, view(out, {1, 5})});
  EXPECT_TRUE(std::isnan(f32_from_bf16(out[0])) && std::isnan(f32_from_bf16(out[1])));
  EXPECT_EQ(f32_from_bf16(out[2]), kInf);
  EXPECT_EQ(f32_from_bf16(out[3]), -kInf);
  EXPECT_TRUE(std::isfinite(f32_from_bf16(out[4])));
}

TEST_P(GemmTest, SeveralTensorsMakeOneMatrix) {
  const auto backend = make();
  Case whole(5, 150, 64, 5);
  const FileTensor tensor = f32_tensor(whole.weight, 150, 64);
  const std::span all(whole.weight);
  const std::vector<float> q(all.begin(), all.begin() + 100 * 64), k(all.begin() + 100 * 64, all.begin() + 117 * 64),
      v(all.begin() + 117 * 64, all.end());
  const FileTensor three[] = {f32_tensor(q, 100, 64), f32_tensor(k, 17, 64), f32_tensor(v, 33, 64)};
  const Weight one = backend->pack({&tensor, 1}, PackOrder::kRows), joined = backend->pack(three, PackOrder::kRows);
  EXPECT_EQ(joined.rows, 150u);
  const std::vector<float> zeros(size_t{5} * 150);
  EXPECT_TRUE(same_bits<float>(multiply(*backend, whole, one, zeros, Epilogue::kNone),
                               multiply(*backend, whole, joined, zeros, Epilogue::kNone)));
}

// The heart of placement invariance: whatever surrounds a row, its bits are the same.
TEST_P(GemmTest, RowBitsDependNeitherOnRowsNorThreads) {
  constexpr uint32_t kRows = 67, kFeatures = 300, kDepth = 578;  // 5 panels: runs of two lengths
  Case all(kRows, kFeatures, kDepth, 6);
  const FileTensor tensor = f32_tensor(all.weight, kFeatures, kDepth);
  const FileTensor halves[] = {f32_tensor(all.weight, kFeatures, kDepth), f32_tensor(all.weight, kFeatures, kDepth)};
  for (const Epilogue epilogue : {Epilogue::kNone, Epilogue::kAddResidual, Epilogue::kSwiGlu}) {
    std::vector<std::byte> expected;
    for (const uint32_t threads : {1u, 2u, 3u}) {
      const auto backend = make(threads);
      const Weight weight = epilogue == Epilogue::kSwiGlu ? backend->pack(halves, PackOrder::kGateUp)
                                                          : backend->pack({&tensor, 1}, PackOrder::kRows);
      for (const uint32_t chunk : {67u, 1u, 2u, 3u, 4u, 5u, 6u, 7u, 11u, 16u, 40u}) {
        std::vector<float> out_f32(size_t{kRows} * kFeatures, 0.25f);
        std::vector<uint16_t> out_bf16(size_t{kRows} * kFeatures);
        const bool narrow = epilogue == Epilogue::kSwiGlu;
        TensorView out = narrow ? view(out_bf16, {kRows, kFeatures}) : view(out_f32, {kRows, kFeatures});
        const std::span<std::byte> bytes(out.data, size_t{kRows} * kFeatures * (narrow ? 2 : 4));
        for (uint32_t row = 0; row < kRows; row += chunk) {
          const uint32_t rows = std::min(chunk, kRows - row);
          TensorView a = view(all.a, {kRows, kDepth}), part = out;
          a.data += size_t{row} * kDepth * 2;
          part.data += bytes.size() / kRows * row;
          a.shape[0] = part.shape[0] = rows;
          backend->gemm({a, &weight, epilogue, part});
        }
        if (expected.empty()) expected.assign(bytes.begin(), bytes.end());
        ASSERT_TRUE(same_bits<std::byte>(expected, bytes)) << "threads " << threads << " chunk " << chunk;
      }
    }
  }
}

TEST_P(GemmTest, BlocksOfManyRowsKeepTheBits) {  // more rows than fit one row block of a deep matrix
  const auto backend = make(2);
  Case c(700, 130, 1536, 7);
  const FileTensor tensor = f32_tensor(c.weight, c.n, c.k);
  const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
  const std::vector<float> whole =
      multiply(*backend, c, weight, std::vector<float>(size_t{c.m} * c.n), Epilogue::kNone);
  for (const uint32_t row : {0u, 169u, 170u, 171u, 699u}) {
    std::vector<uint16_t> a(c.a.begin() + size_t{row} * c.k, c.a.begin() + (size_t{row} + 1) * c.k);
    std::vector<float> out(c.n);
    backend->gemm({view(a, {1, c.k}), &weight, Epilogue::kNone, view(out, {1, c.n})});
    EXPECT_TRUE(same_bits<float>(out, std::span(whole).subspan(size_t{row} * c.n, c.n))) << row;
  }
}

TEST_P(GemmTest, DenormalsAreFlushedWhateverTheCallersMode) {
  const auto backend = make();
  std::vector<uint16_t> a = {bf16_from_f32(0x1p-70f), 0};
  const std::vector<float> tiny = {0x1p-70f, 0};
  const FileTensor tensor = f32_tensor(tiny, 1, 2);
  const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
  std::vector<float> out = {1};
  backend->gemm({view(a, {1, 2}), &weight, Epilogue::kNone, view(out, {1, 1})});
  EXPECT_EQ(out[0], 0.0f);  // 2^-140 would be a denormal
  volatile float smallest = 0x1p-126f;
  EXPECT_NE(smallest / 2, 0.0f) << "the caller's own mode must be back";
}

TEST_P(GemmTest, PackRefusesAShapeItCannotHold) {
  const auto backend = make();
  const std::vector<float> values(8);
  FileTensor tensor = f32_tensor(values, 2, 5);
  tensor.name = "blk.0.attn_q.weight";
  try {
    backend->pack({&tensor, 1}, PackOrder::kRows);
    FAIL() << "40 bytes asked of 32 stored";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("blk.0.attn_q.weight"), std::string::npos);
  }
}

}  // namespace
}  // namespace spillway
