// Matrices that stay quantised in memory (kernels/cpu/packed_weight.h).
#include "tests/kernels/narrow_cases.h"

namespace spillway {
namespace {

using NarrowWeights = BackendTest;
SPILLWAY_FOR_EACH_ISA(NarrowWeights);

TEST_P(NarrowWeights, TakeTheBytesOfTheirType) {
  const auto backend = make();
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix matrix(type, 70, 256, 1);
    const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
    EXPECT_EQ(static_cast<double>(weight.bytes), 128 * 256 * type.bytes_per_value) << type.name;
  }
}

TEST_P(NarrowWeights, AreTheStoredValuesBitByBit) {
  const auto backend = make(2);
  constexpr uint32_t kDepth = 256, kFeatures = 70;
  std::vector<uint16_t> identity(size_t{kDepth} * kDepth);
  for (uint32_t k = 0; k < kDepth; ++k) identity[size_t{k} * (kDepth + 1)] = bf16_from_f32(1);
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix matrix(type, kFeatures, kDepth, 2);
    const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
    for (const uint32_t rows : {kDepth, 1u, 2u, 3u, 5u}) {
      for (uint32_t first = 0; first + rows <= kDepth; first += rows) {
        const auto at = identity.begin() + size_t{first} * kDepth;
        const std::vector<float> out = multiply(*backend, {at, at + size_t{rows} * kDepth}, rows, weight);
        for (uint32_t row = 0; row < rows; ++row)
          for (uint32_t n = 0; n < kFeatures; ++n)
            ASSERT_EQ(out[row * kFeatures + n], matrix.values[n * kDepth + first + row])
                << type.name << " k " << first + row << " column " << n << " of " << rows << " rows";
      }
    }
  }
}

TEST_P(NarrowWeights, ProductsMatchF64) {
  const auto backend = make();
  for (const QuantisedType& type : kQuantisedTypes) {
    for (const uint32_t depth : kNarrowDepths) {
      if (!takes(type, depth)) continue;
      const QuantisedMatrix matrix(type, 67, depth, depth);
      const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
      for (const uint32_t rows : {1u, 3u, 7u}) {
        const std::vector<uint16_t> a = Values(rows).bf16(size_t{rows} * depth);
        const std::vector<float> out = multiply(*backend, a, rows, weight);
        for (uint32_t row = 0; row < rows; ++row)
          for (uint32_t n = 0; n < 67; ++n) {
            double sum = 0, squares = 0;
            for (uint32_t k = 0; k < depth; ++k) {
              const double product = double{f32_from_bf16(a[row * depth + k])} * matrix.values[size_t{n} * depth + k];
              sum += product;
              squares += product * product;
            }
            ASSERT_NEAR(out[row * 67 + n], sum, 4 * 0x1p-23 * std::sqrt(depth * squares) + 1e-6)
                << type.name << " depth " << depth << " row " << row << " column " << n;
          }
      }
    }
  }
}

TEST_P(NarrowWeights, RowBitsDependNeitherOnRowsNorThreads) {
  constexpr uint32_t kRows = 17, kFeatures = 70;
  for (const QuantisedType& type : kQuantisedTypes) {
    for (const uint32_t depth : kNarrowDepths) {
      if (!takes(type, depth)) continue;
      const QuantisedMatrix matrix(type, kFeatures, depth, depth + 1);
      const std::vector<uint16_t> a = Values(depth).bf16(size_t{kRows} * depth);
      std::vector<float> expected;
      for (const uint32_t threads : {1u, 2u}) {
        const auto backend = make(threads);
        const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
        for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u, 9u, 10u, 11u, kRows})
          for (uint32_t first = 0; first < kRows; first += rows) {
            const uint32_t count = std::min(rows, kRows - first);
            const auto at = a.begin() + size_t{first} * depth;
            const std::vector<float> out = multiply(*backend, {at, at + size_t{count} * depth}, count, weight);
            if (expected.empty()) expected = multiply(*backend, a, kRows, weight);
            ASSERT_TRUE(same_bits<float>(out, std::span(expected).subspan(first * kFeatures, count * kFeatures)))
                << type.name << " depth " << depth << ": " << count << " rows from " << first;
          }
      }
    }
  }
}

// More rows than are prepared at once, where a level prepares them; the last ones fewer than a task takes.
TEST_P(NarrowWeights, AnyNumberOfRowsIsTaken) {
  constexpr uint32_t kDepth = 28672, kRows = 100, kFeatures = 5;
  const auto backend = make(2);
  const QuantisedMatrix matrix(kQuantisedTypes[1], kFeatures, kDepth, 3);
  const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
  const std::vector<uint16_t> a = Values(3).bf16(size_t{kRows} * kDepth);
  const std::vector<float> all = multiply(*backend, a, kRows, weight);
  for (const uint32_t row : {0u, 60u, 61u, 62u, 95u, 96u, 99u}) {
    const auto at = a.begin() + size_t{row} * kDepth;
    const std::vector<float> alone = multiply(*backend, {at, at + kDepth}, 1, weight);
    ASSERT_TRUE(same_bits<float>(alone, std::span(all).subspan(row * kFeatures, kFeatures))) << row;
  }
}

TEST_P(NarrowWeights, AnInfiniteScaleSpoilsItsColumnAndNoOther) {
  const auto backend = make();
  constexpr uint32_t kDepth = 64, kFeatures = 5, kRows = 6;
  for (const QuantisedType& type : {kQuantisedTypes[0], kQuantisedTypes[1], kQuantisedTypes[4]}) {
    QuantisedMatrix matrix(type, kFeatures, kDepth, 12);
    const uint16_t infinite = 0x7c00;
    const size_t row_bytes = matrix.bytes.size() / kFeatures;
    std::memcpy(&matrix.bytes[3 * row_bytes], &infinite, sizeof infinite);
    const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
    const std::vector<float> out = multiply(*backend, Values(4).bf16(size_t{kRows} * kDepth), kRows, weight);
    for (uint32_t i = 0; i < out.size(); ++i)
      ASSERT_EQ(std::isfinite(out[i]), i % kFeatures != 3) << type.name << " row " << i / kFeatures;
  }
}

// A chain of fused multiply-adds over ascending k, of f32 weights; the scalar one rounds products too; AVX-512's goes
// block by block.
TEST_P(NarrowWeights, SumsAreInTheOrderOfTheClass) {
  const auto backend = make();
  const bool by_blocks = GetParam() == "avx512bf16";
  constexpr uint32_t kDepth = 576, kRows = 5;
  for (const QuantisedType& type : {kQuantisedTypes[1], kQuantisedTypes[4]}) {
    const QuantisedMatrix matrix(type, 65, kDepth, 4);
    const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
    const size_t count = size_t{kRows} * kDepth;
    const std::vector<uint16_t> a = by_blocks ? small_integers(count, 5) : Values(5).bf16(count);
    const std::vector<float> out = multiply(*backend, a, kRows, weight);
    for (uint32_t row = 0; row < kRows; ++row)
      for (uint32_t n = 0; n < 65; ++n) {
        float sum = by_blocks ? product_by_blocks(matrix, n, &a[row * kDepth]) : 0;
        for (uint32_t k = 0; k < kDepth && !by_blocks; ++k) {
          const float x = f32_from_bf16(a[row * kDepth + k]), w = matrix.values[n * kDepth + k];
          sum = GetParam() == "scalar" ? sum + x * w : std::fma(x, w, sum);
        }
        ASSERT_EQ(out[row * 65 + n], sum) << type.name << " row " << row << " column " << n;
      }
  }
}

TEST_P(NarrowWeights, GateAndUpAreThoseOfTheSameValuesOneByOne) {
  const auto backend = make();
  constexpr uint32_t kDepth = 256, kFeatures = 40, kRows = 23;
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix gate(type, kFeatures, kDepth, 6), up(kQuantisedTypes[7], kFeatures, kDepth, 7);
    const FileTensor tensors[] = {gate.tensor, up.tensor};
    const Weight both = backend->pack(tensors, PackOrder::kGateUp);
    const std::vector<Weight> alone{backend->pack({&gate.tensor, 1}, PackOrder::kRows),
                                    backend->pack({&up.tensor, 1}, PackOrder::kRows)};
    std::vector<uint16_t> a = Values(8).bf16(size_t{kRows} * kDepth), out(kRows * kFeatures);
    backend->gemm({view(a, {kRows, kDepth}), &both, Epilogue::kSwiGlu, view(out, {kRows, kFeatures})});
    const std::vector<float> gates = multiply(*backend, a, kRows, alone[0]),
                             ups = multiply(*backend, a, kRows, alone[1]);
    for (size_t i = 0; i < out.size(); ++i) {
      const double expected = double{gates[i]} / (1 + std::exp(-double{gates[i]})) * ups[i];
      ASSERT_NEAR(f32_from_bf16(out[i]), expected, std::abs(expected) * 0x1p-8 + 1e-6) << type.name;
    }
  }
}

TEST_P(NarrowWeights, MixedTypesAreNarrowTogetherAndBf16WithOneThatIsNot) {
  const auto backend = make();
  const QuantisedMatrix q(kQuantisedTypes[5], 64, 256, 9), v(kQuantisedTypes[7], 64, 256, 10);
  const std::vector<float> plain(64 * 256, 0.5f);
  const FileTensor narrow[] = {q.tensor, v.tensor}, wide[] = {q.tensor, f32_tensor(plain, 64, 256)};
  EXPECT_EQ(backend->pack(narrow, PackOrder::kRows).bytes, 128 * 256 * 3 / 2);
  EXPECT_EQ(backend->pack(wide, PackOrder::kRows).bytes, 128 * 256 * 2);
}

TEST_P(NarrowWeights, AScaleWhoseLeastValueNoF16HoldsIsRefusedByName) {
  const auto backend = make();
  for (const QuantisedType& type : {kQuantisedTypes[0], kQuantisedTypes[2], kQuantisedTypes[4]}) {
    QuantisedMatrix matrix(type, 3, 64, 11);
    const uint16_t least[] = {0x6fff, 0x7000, 0x7c00};  // 8188 is the greatest that -8 d fits with; infinity stays so
    for (const uint16_t scale : least) {
      std::memcpy(matrix.bytes.data() + cpu::stored_block(type.type).bytes * 5, &scale, sizeof scale);
      const bool fits = scale == 0x7c00 || (scale == 0x6fff && type.type == StoredType::kQ4_0);
      try {
        backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
        EXPECT_TRUE(fits) << type.name << " " << scale;
      } catch (const SetupError& error) {
        EXPECT_FALSE(fits) << error.what();
        EXPECT_NE(std::string(error.what()).find(type.name), std::string::npos) << error.what();
      }
    }
  }
}

}  // namespace
}  // namespace spillway
