#include "tests/kernels/avx512_emulated.h"

#include "kernels/cpu/packed_weight.h"
#include "tests/kernels/narrow_cases.h"

// The AVX-512 products where there may be no AVX-512.
namespace spillway {
namespace {

// The rows of these blocks, all features; into rows `first` and following of out, as multiplied so far.
template <class T, class Block>
void multiply_emulated(const Weight& weight, void (*product)(const cpu::GemmPanel&), std::span<const Block> blocks,
                       uint32_t first, cpu::PanelEpilogue epilogue, std::vector<T>& out) {
  struct alignas(64) Scratch {
    std::byte bytes[cpu::kPanelScratchBytes];
  };
  const auto scratch = std::make_unique<Scratch>();
  const auto format = static_cast<cpu::PanelFormat>(weight.format);
  const bool swiglu = epilogue == cpu::PanelEpilogue::kSwiGlu;
  const uint32_t width = swiglu ? weight.rows / 2 : weight.rows;
  const uint32_t panel_width = swiglu ? cpu::kPanelColumns / 2 : cpu::kPanelColumns;
  for (uint32_t panel = 0; panel < cpu::panel_count(weight.rows, weight.order); ++panel)
    product({.blocks = blocks.data(),
             .rows = static_cast<uint32_t>(blocks.size()) / (weight.cols / Block::kValues),
             .depth = weight.cols,
             .panel = weight.data + panel * cpu::layout_of(format).panel_bytes(weight.cols),
             .format = format,
             .columns = std::min(panel_width, width - panel * panel_width),
             .epilogue = epilogue,
             .out = out.data() + size_t{first} * width + panel * panel_width,
             .out_stride = width,
             .scratch = scratch.get()});
}

template <class Block>
std::vector<Block> blocks_of(const std::vector<uint16_t>& a, void (*prepare)(const uint16_t*, size_t, void*)) {
  std::vector<Block> blocks(a.size() / Block::kValues);
  prepare(a.data(), blocks.size(), blocks.data());
  return blocks;
}

// All rows, so many at once.
template <class Block>
std::vector<float> in_turns(const Weight& weight, void (*product)(const cpu::GemmPanel&),
                            const std::vector<Block>& blocks, uint32_t rows, std::vector<float> out) {
  const uint32_t row_blocks = weight.cols / Block::kValues, all = static_cast<uint32_t>(blocks.size()) / row_blocks;
  for (uint32_t first = 0; first < all; first += rows)
    multiply_emulated(weight, product,
                      std::span(blocks).subspan(first * row_blocks, std::min(rows, all - first) * row_blocks), first,
                      cpu::PanelEpilogue::kAdd, out);
  return out;
}

// What f32 holds exactly leaves one result, whatever the order of sums: a lost or doubled product shows.
TEST(Avx512Emulated, ProductsOfBf16AreExactWhereF32Is) {
  constexpr uint32_t kRows = 11, kFeatures = 100;
  const auto backend = make_backend({"scalar", 1});
  for (const uint32_t depth : {1u, 2u, 31u, 64u, 577u}) {
    const std::vector<uint16_t> a = small_integers(size_t{kRows} * depth, depth);
    std::vector<float> values;
    for (const uint16_t value : small_integers(size_t{kFeatures} * depth, depth + 1))
      values.push_back(f32_from_bf16(value));
    const FileTensor tensor = f32_tensor(values, kFeatures, depth);
    const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
    const std::vector<float> expected = multiply(*backend, a, kRows, weight);
    std::vector<float> out(expected.size());
    for (uint32_t panel = 0; panel < 2; ++panel)
      cpu::gemm_panel_avx512_emulated(
          {.a = a.data(),
           .a_stride = depth,
           .rows = kRows,
           .depth = depth,
           .panel = weight.data + panel * cpu::layout_of(cpu::PanelFormat::kBf16).panel_bytes(depth),
           .columns = panel == 0 ? 64u : kFeatures - 64,
           .out = out.data() + size_t{panel} * 64,
           .out_stride = kFeatures});
    ASSERT_TRUE(same_bits<float>(out, expected)) << "depth " << depth;
  }
}

float folded(const uint16_t* values) {
  float sums[16];
  for (uint32_t i = 0; i < 16; ++i) sums[i] = f32_from_bf16(values[i]);
  for (uint32_t width = 8; width > 0; width /= 2)
    for (uint32_t i = 0; i < width; ++i) sums[i] += sums[i + width];
  return sums[0];
}

TEST(Avx512Emulated, PairsAndSumsOfActivationsAreAsDefined) {
  constexpr uint32_t kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
  const std::vector<uint16_t> a = Values(9).bf16(32 * 50);
  const auto blocks = blocks_of<cpu::PairBlock>(a, cpu::pair_up_avx512_emulated);
  for (size_t block = 0; block < blocks.size(); ++block) {
    const uint16_t* const values = &a[32 * block];
    for (uint32_t i = 0; i < 32; ++i) ASSERT_EQ(blocks[block].pairs[i], values[i / 8 * 8 + kOrder[i % 8]]) << i;
    ASSERT_EQ(blocks[block].half_sums[0], folded(values));
    ASSERT_EQ(blocks[block].half_sums[1], folded(values + 16));
    ASSERT_EQ(blocks[block].sum, folded(values) + folded(values + 16));
  }
}

// But for the order within a dot, which the canary of the class holds.
TEST(Avx512Emulated, ProductsWithCodesAreAsDefined) {
  constexpr uint32_t kRows = 17, kFeatures = 100;
  const auto backend = make_backend({"scalar", 1});
  for (const QuantisedType& type : kQuantisedTypes) {
    for (const uint32_t depth : {32u, 96u, 512u, 576u, 1536u}) {
      if (!takes(type, depth)) continue;
      const QuantisedMatrix matrix(type, kFeatures, depth, depth);
      const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
      const std::vector<uint16_t> a = small_integers(size_t{kRows} * depth, depth);
      const std::vector<float> residual = Values(1).f32(kRows * kFeatures);
      std::vector<float> expected = residual;
      for (size_t i = 0; i < expected.size(); ++i)
        expected[i] += product_by_blocks(matrix, i % kFeatures, &a[i / kFeatures * depth]);
      const auto blocks = blocks_of<cpu::PairBlock>(a, cpu::pair_up_avx512_emulated);
      for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 7u, 8u, 9u, 10u, 11u, 14u, 17u}) {
        const auto out = in_turns(weight, cpu::gemm_panel_codes_avx512_emulated, blocks, rows, residual);
        ASSERT_TRUE(same_bits<float>(out, expected)) << type.name << " depth " << depth << ", " << rows << " rows";
      }
    }
  }
}

// Mixed types lie in blocks of 16, whatever theirs were.
TEST(Avx512Emulated, ProductsWithMixedCodesAreAsDefined) {
  constexpr uint32_t kRows = 5, kFeatures = 32, kDepth = 256;
  const auto backend = make_backend({"scalar", 1});
  const QuantisedMatrix first(kQuantisedTypes[1], kFeatures, kDepth, 1),
      second(kQuantisedTypes[7], kFeatures, kDepth, 2);
  const FileTensor stored[] = {first.tensor, second.tensor};
  const Weight weight = backend->pack(stored, PackOrder::kRows);
  const std::vector<uint16_t> a = small_integers(size_t{kRows} * kDepth, 3);
  std::vector<float> expected;
  for (uint32_t row = 0; row < kRows; ++row)
    for (uint32_t column = 0; column < 2 * kFeatures; ++column)
      expected.push_back(
          product_by_blocks(column < kFeatures ? first : second, column % kFeatures, &a[row * kDepth], 16));
  const auto blocks = blocks_of<cpu::PairBlock>(a, cpu::pair_up_avx512_emulated);
  for (const uint32_t rows : {1u, kRows})
    ASSERT_TRUE(same_bits<float>(
        in_turns(weight, cpu::gemm_panel_codes_avx512_emulated, blocks, rows, std::vector<float>(expected.size())),
        expected))
        << rows << " rows";
}

TEST(Avx512Emulated, RowsOfProductsWithCodesDependOnNoOther) {
  constexpr uint32_t kRows = 17, kFeatures = 70, kDepth = 768;
  const auto backend = make_backend({"scalar", 1});
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix matrix(type, kFeatures, kDepth, 5);
    const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
    const std::vector<uint16_t> a = Values(6).bf16(size_t{kRows} * kDepth);
    const auto blocks = blocks_of<cpu::PairBlock>(a, cpu::pair_up_avx512_emulated);
    const std::vector<float> none(kRows * kFeatures);
    const auto expected = in_turns(weight, cpu::gemm_panel_codes_avx512_emulated, blocks, kRows, none);
    for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 8u, 9u, 10u, 11u})
      ASSERT_TRUE(
          same_bits<float>(in_turns(weight, cpu::gemm_panel_codes_avx512_emulated, blocks, rows, none), expected))
          << type.name << ", " << rows << " rows";
    for (const uint32_t column : {0u, 17u, 69u}) {
      double sum = 0, squares = 0;
      for (uint32_t k = 0; k < kDepth; ++k) {
        const double product = double{f32_from_bf16(a[k])} * matrix.values[size_t{column} * kDepth + k];
        sum += product;
        squares += product * product;
      }
      ASSERT_NEAR(expected[column], sum, 4 * 0x1p-23 * std::sqrt(kDepth * squares) + 1e-6) << type.name;
    }
  }
}

TEST(Avx512Emulated, GateAndUpAreThoseOfTheSameValuesOneByOne) {
  constexpr uint32_t kRows = 22, kFeatures = 40, kDepth = 768;  // four, two vectors of columns at once, and one
  const auto backend = make_backend({"scalar", 1});
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix gate(type, kFeatures, kDepth, 2), up(type, kFeatures, kDepth, 3);
    const FileTensor stored[] = {gate.tensor, up.tensor};
    const Weight both = backend->pack(stored, PackOrder::kGateUp);
    const std::vector<uint16_t> a = small_integers(size_t{kRows} * kDepth, 4);
    const auto blocks = blocks_of<cpu::PairBlock>(a, cpu::pair_up_avx512_emulated);
    std::vector<uint16_t> out(kRows * kFeatures);
    uint32_t first = 0;
    for (const uint32_t rows : {3u, 7u, 12u}) {
      multiply_emulated(both, cpu::gemm_panel_codes_avx512_emulated,
                        std::span(blocks).subspan(first * kDepth / 32, rows * kDepth / 32), first,
                        cpu::PanelEpilogue::kSwiGlu, out);
      first += rows;
    }
    for (size_t i = 0; i < out.size(); ++i) {
      const uint16_t* const row = &a[i / kFeatures * kDepth];
      const double g = product_by_blocks(gate, i % kFeatures, row), u = product_by_blocks(up, i % kFeatures, row);
      const double expected = g / (1 + std::exp(-g)) * u;
      ASSERT_NEAR(f32_from_bf16(out[i]), expected, std::abs(expected) * 0x1p-8 + 1e-6) << type.name;
    }
  }
}

// As the scalar level computes them, whose definition tests/kernels/int8_activations_test.cc checks.
TEST(Avx512Emulated, ProductsOfInt8ActivationsHaveTheBitsOfTheScalarLevel) {
  constexpr uint32_t kRows = 13, kFeatures = 100;
  const auto backend = make_backend({.isa = "scalar", .threads = 1, .precision = {Activations::kInt8}});
  for (const QuantisedType& type : kQuantisedTypes) {
    for (const uint32_t depth : {32u, 96u, 576u, 1536u}) {
      if (!takes(type, depth)) continue;
      const QuantisedMatrix matrix(type, kFeatures, depth, depth);
      const Weight weight = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
      std::vector<uint16_t> a = Values(depth).bf16(size_t{kRows} * depth);
      std::fill_n(a.begin(), 32, 0);
      const std::vector<float> expected = multiply(*backend, a, kRows, weight);
      const auto blocks = blocks_of<cpu::ActivationBlock>(a, cpu::quantise_avx512_emulated);
      const std::vector<float> none(expected.size());
      for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 13u}) {
        const auto out = in_turns(weight, cpu::gemm_panel_int8_avx512_emulated, blocks, rows, none);
        ASSERT_TRUE(same_bits<float>(out, expected)) << type.name << " depth " << depth << ", " << rows << " rows";
      }
    }
  }
}

TEST(Avx512Emulated, GateAndUpOfInt8ActivationsAreThoseOfTheSameValuesOneByOne) {
  constexpr uint32_t kRows = 9, kFeatures = 40, kDepth = 768;
  const auto backend = make_backend({.isa = "scalar", .threads = 1, .precision = {Activations::kInt8}});
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix gate(type, kFeatures, kDepth, 2), up(type, kFeatures, kDepth, 3);
    const FileTensor stored[] = {gate.tensor, up.tensor};
    const Weight both = backend->pack(stored, PackOrder::kGateUp);
    const std::vector<uint16_t> a = Values(4).bf16(size_t{kRows} * kDepth);
    const auto blocks = blocks_of<cpu::ActivationBlock>(a, cpu::quantise_avx512_emulated);
    std::vector<uint16_t> out(kRows * kFeatures);
    multiply_emulated(both, cpu::gemm_panel_int8_avx512_emulated, std::span<const cpu::ActivationBlock>(blocks), 0,
                      cpu::PanelEpilogue::kSwiGlu, out);
    const auto alone = [&](const QuantisedMatrix& matrix) {
      return multiply(*backend, a, kRows, backend->pack({&matrix.tensor, 1}, PackOrder::kRows));
    };
    const std::vector<float> gates = alone(gate), ups = alone(up);
    for (size_t i = 0; i < out.size(); ++i) {
      const double expected = double{gates[i]} / (1 + std::exp(-double{gates[i]})) * ups[i];
      ASSERT_NEAR(f32_from_bf16(out[i]), expected, std::abs(expected) * 0x1p-8 + 1e-6) << type.name;
    }
  }
}

}  // namespace
}  // namespace spillway
