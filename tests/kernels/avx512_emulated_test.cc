#include "tests/kernels/avx512_emulated.h"

#include "kernels/cpu/packed_weight.h"
#include "tests/kernels/narrow_cases.h"

// The AVX-512 products where there may be no AVX-512.
namespace spillway {
namespace {

// Rows [first, first + rows) of `a`, all features; out as multiplied so far.
template <class T>
void multiply_emulated(const Weight& weight, const std::vector<uint16_t>& a, uint32_t first, uint32_t rows,
                       cpu::PanelEpilogue epilogue, std::vector<T>& out, const cpu::ActivationBlock* blocks = nullptr) {
  struct alignas(64) Scratch {
    std::byte bytes[cpu::kPanelScratchBytes];
  };
  const auto scratch = std::make_unique<Scratch>();
  const auto format = static_cast<cpu::PanelFormat>(weight.format);
  const bool swiglu = epilogue == cpu::PanelEpilogue::kSwiGlu;
  const uint32_t width = swiglu ? weight.rows / 2 : weight.rows;
  const uint32_t panel_width = swiglu ? cpu::kPanelColumns / 2 : cpu::kPanelColumns;
  const auto product = blocks == nullptr ? cpu::gemm_panel_avx512_emulated : cpu::gemm_panel_int8_avx512_emulated;
  for (uint32_t panel = 0; panel < cpu::panel_count(weight.rows, weight.order); ++panel)
    product({.a = a.data() + size_t{first} * weight.cols,
             .blocks = blocks,
             .a_stride = weight.cols,
             .rows = rows,
             .depth = weight.cols,
             .panel = weight.data + panel * cpu::layout_of(format).panel_bytes(weight.cols),
             .format = format,
             .columns = std::min(panel_width, width - panel * panel_width),
             .epilogue = epilogue,
             .out = out.data() + size_t{first} * width + panel * panel_width,
             .out_stride = width,
             .scratch = scratch.get()});
}

// Both ways of a narrow panel, few rows and many, have the bits of the same values packed as bf16.
TEST(Avx512Emulated, NarrowProductsHaveTheBitsOfBf16Ones) {
  constexpr uint32_t kRows = 13, kFeatures = 100;
  const auto backend = make_backend({"scalar", 1});
  for (const QuantisedType& type : kQuantisedTypes) {
    for (const uint32_t depth : {32u, 96u, 512u, 576u, 1536u}) {
      if (depth % cpu::stored_block(type.type).values != 0) continue;
      const QuantisedMatrix matrix(type, kFeatures, depth, depth);
      const FileTensor plain = f32_tensor(matrix.values, kFeatures, depth);
      const Weight narrow = backend->pack({&matrix.tensor, 1}, PackOrder::kRows);
      const Weight wide = backend->pack({&plain, 1}, PackOrder::kRows);
      const std::vector<uint16_t> a = Values(depth).bf16(size_t{kRows} * depth);
      const std::vector<float> residual = Values(1).f32(kRows * kFeatures);
      std::vector<float> expected = residual;
      multiply_emulated(wide, a, 0, kRows, cpu::PanelEpilogue::kAdd, expected);
      for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 7u, 13u}) {
        std::vector<float> out = residual;
        for (uint32_t first = 0; first < kRows; first += rows)
          multiply_emulated(narrow, a, first, std::min(rows, kRows - first), cpu::PanelEpilogue::kAdd, out);
        ASSERT_TRUE(same_bits<float>(out, expected)) << type.name << " depth " << depth << ", " << rows << " rows";
      }
      for (const uint32_t column : {0u, 17u, 99u}) {
        double sum = residual[column], squares = 0;
        for (uint32_t k = 0; k < depth; ++k) {
          const double product = f32_from_bf16(a[k]) * rounded(matrix.values[size_t{column} * depth + k]);
          sum += product;
          squares += product * product;
        }
        ASSERT_NEAR(expected[column], sum, 4 * 0x1p-23 * std::sqrt(depth * squares) + 1e-6) << type.name;
      }
    }
  }
}

TEST(Avx512Emulated, NarrowGateAndUpHaveTheBitsOfBf16Ones) {
  constexpr uint32_t kRows = 7, kFeatures = 40, kDepth = 768;
  const auto backend = make_backend({"scalar", 1});
  for (const QuantisedType& type : kQuantisedTypes) {
    const QuantisedMatrix gate(type, kFeatures, kDepth, 2), up(type, kFeatures, kDepth, 3);
    const FileTensor stored[] = {gate.tensor, up.tensor};
    const FileTensor plain[] = {f32_tensor(gate.values, kFeatures, kDepth), f32_tensor(up.values, kFeatures, kDepth)};
    const Weight narrow = backend->pack(stored, PackOrder::kGateUp), wide = backend->pack(plain, PackOrder::kGateUp);
    const std::vector<uint16_t> a = Values(4).bf16(size_t{kRows} * kDepth);
    std::vector<uint16_t> expected(kRows * kFeatures), out(expected.size());
    multiply_emulated(wide, a, 0, kRows, cpu::PanelEpilogue::kSwiGlu, expected);
    multiply_emulated(narrow, a, 0, 3, cpu::PanelEpilogue::kSwiGlu, out);
    multiply_emulated(narrow, a, 3, 4, cpu::PanelEpilogue::kSwiGlu, out);
    EXPECT_TRUE(same_bits<uint16_t>(out, expected)) << type.name;
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
      const uint32_t row_blocks = depth / 32;
      std::vector<cpu::ActivationBlock> blocks(kRows * row_blocks);
      cpu::quantise_avx512_emulated(a.data(), blocks.size(), blocks.data());
      for (const uint32_t rows : {1u, 2u, 3u, 4u, 5u, 13u}) {
        std::vector<float> out(expected.size());
        for (uint32_t first = 0; first < kRows; first += rows)
          multiply_emulated(weight, a, first, std::min(rows, kRows - first), cpu::PanelEpilogue::kStore, out,
                            &blocks[first * row_blocks]);
        ASSERT_TRUE(same_bits<float>(out, expected)) << type.name << " depth " << depth << ", " << rows << " rows";
      }
    }
  }
}

}  // namespace
}  // namespace spillway
