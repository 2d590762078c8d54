// Products of int8 activations (Activations::kInt8) with weights that stay quantised: against the definition in
// kernels/cpu/isa_kernels.h and docs/numerics.md, computed here value by value, so all levels have the same bits.
#include <limits>

#include "kernels/cpu/cpu_backend.h"
#include "kernels/numerics.h"
#include "tests/kernels/narrow_cases.h"

namespace spillway {
namespace {

constexpr Precision kInt8{.activations = Activations::kInt8};

class Int8Activations : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> make(uint32_t threads = 1) const {
    return make_backend({.isa = GetParam(), .threads = threads, .precision = kInt8});
  }
};
INSTANTIATE_TEST_SUITE_P(Isa, Int8Activations, testing::ValuesIn(available_isa_levels(kInt8)),
                         [](const auto& isa_level) { return isa_level.param; });

struct Quantised {
  std::vector<int> codes;
  std::vector<float> scales;  // of each 32
};

Quantised quantised(std::span<const uint16_t> row) {
  Quantised out;
  for (size_t block = 0; block < row.size() / 32; ++block) {
    float greatest = 0;
    bool finite = true;
    for (const uint16_t bits : row.subspan(32 * block, 32)) {
      finite &= std::isfinite(f32_from_bf16(bits));
      greatest = std::max(greatest, std::abs(f32_from_bf16(bits)));
    }
    const bool empty = !finite || greatest < 0x1p-100f;
    out.scales.push_back(!finite ? std::numeric_limits<float>::quiet_NaN() : empty ? 0 : greatest / 127);
    for (const uint16_t bits : row.subspan(32 * block, 32))
      out.codes.push_back(empty ? 0 : static_cast<int>(std::lrint(f32_from_bf16(bits) * (127 / greatest))));
  }
  return out;
}

uint32_t panel_block_of(StoredType type) { return type == StoredType::kQ6_K ? 16 : 32; }

float expected(const Quantised& row, const FileTensor& tensor, uint32_t column) {
  const uint32_t stored = cpu::stored_block(tensor.type).values, values = panel_block_of(tensor.type);
  float sum = 0;
  cpu::Codes codes;
  for (uint32_t first = 0; first < tensor.cols; first += values) {
    if (first % stored == 0) cpu::read_codes(tensor, column, first, codes);
    const uint32_t at = first % stored;
    int64_t dot = 0, codes_sum = 0;
    for (uint32_t k = 0; k < values; ++k) {
      dot += int64_t{codes.codes[at + k]} * row.codes[first + k];
      codes_sum += row.codes[first + k];
    }
    const float d = codes.d[at / 16], m = codes.m[at / 16], offset = 12582912;
    const float product =
        std::fma(d, offset + static_cast<float>(dot), std::fma(m, static_cast<float>(codes_sum), -(d * offset)));
    sum = std::fma(row.scales[first / 32], product, sum);
  }
  return sum;
}

void expect_as_defined(Backend& backend, const QuantisedMatrix& matrix, const std::vector<uint16_t>& a, uint32_t rows) {
  const Weight weight = backend.pack({&matrix.tensor, 1}, PackOrder::kRows);
  const std::vector<float> out = multiply(backend, a, rows, weight);
  for (uint32_t row = 0; row < rows; ++row) {
    const Quantised of_row = quantised(std::span(a).subspan(size_t{row} * weight.cols, weight.cols));
    for (uint32_t n = 0; n < weight.rows; ++n)
      ASSERT_EQ(out[row * weight.rows + n], expected(of_row, matrix.tensor, n))
          << matrix.tensor.name << " depth " << weight.cols << " row " << row << " column " << n << " of " << rows;
  }
}

TEST_P(Int8Activations, ProductsAreThoseOfTheDefinitionBitByBit) {
  const auto backend = make();
  for (const QuantisedType& type : kQuantisedTypes)
    for (const uint32_t depth : kNarrowDepths) {
      if (!takes(type, depth)) continue;
      const QuantisedMatrix matrix(type, 67, depth, depth);
      for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 13u})
        expect_as_defined(*backend, matrix, Values(rows).bf16(size_t{rows} * depth), rows);
    }
}

// All codes at their ends, where a sum in 16 bits or one that saturates would show.
TEST_P(Int8Activations, SumsOfTheGreatestCodesAreExact) {
  const auto backend = make();
  constexpr uint32_t kDepth = 256, kRows = 4;
  std::vector<uint16_t> a;
  for (uint32_t row = 0; row < kRows; ++row)
    for (uint32_t k = 0; k < kDepth; ++k)
      a.push_back(bf16_from_f32(row == 0 || (row == 2 && k % 2 == 0) || (row == 3 && k % 8 < 4) ? 1 : -1));
  for (const QuantisedType& type : kQuantisedTypes)
    for (const int bits : {0x00, 0x7f, 0x80, 0xff}) {
      QuantisedMatrix matrix(type, 3, kDepth, 1);
      const cpu::StoredBlock block = cpu::stored_block(type.type);
      for (size_t at = 0; at < matrix.bytes.size(); ++at)
        if (const size_t in_block = at % block.bytes;
            in_block < type.scales_at || in_block >= type.scales_at + 2 * type.scales)
          matrix.bytes[at] = static_cast<std::byte>(bits);
      expect_as_defined(*backend, matrix, a, kRows);
    }
}

TEST_P(Int8Activations, RowBitsDependNeitherOnRowsNorThreads) {
  constexpr uint32_t kRows = 13, kFeatures = 70;
  for (const QuantisedType& type : kQuantisedTypes)
    for (const uint32_t depth : {256u, 1536u}) {
      const QuantisedMatrix matrix(type, kFeatures, depth, depth + 1);
      const std::vector<uint16_t> a = Values(depth).bf16(size_t{kRows} * depth);
      std::vector<float> all;
      for (const uint32_t threads : {1u, 2u}) {
        const auto backend = make(threads);
        const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
        if (all.empty()) all = multiply(*backend, a, kRows, weight);
        for (uint32_t rows = 1; rows <= kRows; ++rows)
          for (uint32_t first = 0; first < kRows; first += rows) {
            const uint32_t count = std::min(rows, kRows - first);
            const auto at = a.begin() + size_t{first} * depth;
            const std::vector<float> out = multiply(*backend, {at, at + size_t{count} * depth}, count, weight);
            ASSERT_TRUE(same_bits<float>(out, std::span(all).subspan(first * kFeatures, count * kFeatures)))
                << type.name << " depth " << depth << ": " << count << " rows from " << first;
          }
      }
    }
}

// More rows than are quantised at once.
TEST_P(Int8Activations, AnyNumberOfRowsIsTaken) {
  constexpr uint32_t kDepth = 14336, kRows = 200, kFeatures = 5;
  const auto backend = make(2);
  const QuantisedMatrix matrix(kQuantisedTypes[1], kFeatures, kDepth, 3);
  const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
  const std::vector<uint16_t> a = Values(3).bf16(size_t{kRows} * kDepth);
  const std::vector<float> all = multiply(*backend, a, kRows, weight);
  for (uint32_t row = 0; row < kRows; ++row) {
    const auto at = a.begin() + size_t{row} * kDepth;
    const std::vector<float> alone = multiply(*backend, {at, at + kDepth}, 1, weight);
    ASSERT_TRUE(same_bits<float>(alone, std::span(all).subspan(row * kFeatures, kFeatures))) << row;
  }
}

TEST_P(Int8Activations, AValueThatIsNotFiniteMakesItsRowNaNAndNoOther) {
  const auto backend = make();
  constexpr uint32_t kDepth = 256, kRows = 5, kFeatures = 70;
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix matrix(type, kFeatures, kDepth, 5);
    const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
    const std::vector<uint16_t> good = Values(5).bf16(size_t{kRows} * kDepth);
    const std::vector<float> expected = multiply(*backend, good, kRows, weight);
    for (const uint16_t bad : {0x7f80, 0xff80, 0x7fc0, 0xffc1, 0x7f81}) {
      std::vector<uint16_t> a = good;
      a[2 * kDepth + 77] = bad;
      const std::vector<float> out = multiply(*backend, a, kRows, weight);
      for (uint32_t i = 0; i < out.size(); ++i) {
        if (i / kFeatures == 2) {
          ASSERT_TRUE(std::isnan(out[i])) << type.name << " column " << i % kFeatures << " " << bad;
        } else {
          ASSERT_EQ(out[i], expected[i]) << type.name << " row " << i / kFeatures;
        }
      }
    }
  }
}

// Zeros, what counts as such, the least and the greatest that does not, and values of very different size.
TEST_P(Int8Activations, BlocksOfAnyMagnitudeAreAsDefined) {
  const auto backend = make();
  constexpr uint32_t kDepth = 512;
  const float magnitudes[] = {0, 0x1p-126f, 0x1p-101f, 0x1p-100f, 0x1p-60f, 1, 0x1p60f, 0x1p90f};
  std::vector<uint16_t> a = Values(6).bf16(2 * kDepth);
  for (uint32_t i = 0; i < a.size(); ++i)
    a[i] = bf16_from_f32(f32_from_bf16(a[i]) * (i < kDepth ? magnitudes[i / 32 % 8] : magnitudes[i % 8]));
  for (uint32_t block = 0; block < kDepth / 32; ++block) a[32 * block] = bf16_from_f32(-magnitudes[block % 8]);
  for (const QuantisedType& type : kQuantisedTypes)
    expect_as_defined(*backend, QuantisedMatrix(type, 65, kDepth, 7), a, 2);
}

TEST_P(Int8Activations, BlocksBelowTheLeastMagnitudeAreZeros) {
  for (const cpu::IsaLevel& level : cpu::available_levels(kInt8)) {
    if (level.name != GetParam()) continue;
    for (const uint16_t greatest : {0x0d80, 0x0d7f, 0x0080, 0x0000}) {  // 2^-100, the bf16 below it, 2^-126, 0
      std::vector<uint16_t> values(32, static_cast<uint16_t>(greatest / 2));
      values[17] = greatest | 0x8000;
      cpu::ActivationBlock block;
      level.codes[static_cast<size_t>(Activations::kInt8)].prepare(values.data(), 1, &block);
      EXPECT_EQ(block.scale, greatest == 0x0d80 ? 0x1p-100f / 127 : 0) << greatest;
      EXPECT_EQ(block.codes[17], greatest == 0x0d80 ? -127 : 0) << greatest;
      EXPECT_EQ(block.sum, greatest == 0x0d80 ? -127 : 0) << greatest;
    }
  }
}

TEST_P(Int8Activations, EpiloguesAreThoseOfTheProduct) {
  const auto backend = make();
  constexpr uint32_t kDepth = 256, kFeatures = 40, kRows = 5;
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix gate(type, kFeatures, kDepth, 6), up(type, kFeatures, kDepth, 7);
    const FileTensor tensors[] = {gate.tensor, up.tensor};
    const Weight both = backend->pack(tensors, PackOrder::kGateUp);
    const Weight gate_alone = backend->pack({&gate.tensor, 1}, PackOrder::kRows),
                 up_alone = backend->pack({&up.tensor, 1}, PackOrder::kRows);
    std::vector<uint16_t> a = Values(8).bf16(size_t{kRows} * kDepth), out(kRows * kFeatures);
    backend->gemm({view(a, {kRows, kDepth}), &both, Epilogue::kSwiGlu, view(out, {kRows, kFeatures})});
    const std::vector<float> gates = multiply(*backend, a, kRows, gate_alone),
                             ups = multiply(*backend, a, kRows, up_alone), residual = Values(9).f32(gates.size());
    std::vector<float> added = residual;
    backend->gemm({view(a, {kRows, kDepth}), &gate_alone, Epilogue::kAddResidual, view(added, {kRows, kFeatures})});
    for (size_t i = 0; i < out.size(); ++i) {
      const double product = double{gates[i]} / (1 + std::exp(-double{gates[i]})) * ups[i];
      ASSERT_NEAR(f32_from_bf16(out[i]), product, std::abs(product) * 0x1p-8 + 1e-6) << type.name;
      ASSERT_EQ(added[i], residual[i] + gates[i]) << type.name;
    }
  }
}

TEST_P(Int8Activations, WeightsPackedAsBf16KeepBf16Activations) {
  const auto int8 = make(), bf16 = make_backend({.isa = GetParam(), .threads = 1});
  const std::vector<float> values = Values(10).f32(70 * 64);
  const FileTensor tensor = f32_tensor(values, 70, 64);
  const std::vector<uint16_t> a = Values(11).bf16(3 * 64);
  EXPECT_TRUE(same_bits<float>(multiply(*int8, a, 3, int8->pack({&tensor, 1}, PackOrder::kRows)),
                               multiply(*bf16, a, 3, bf16->pack({&tensor, 1}, PackOrder::kRows))));
}

}  // namespace
}  // namespace spillway
