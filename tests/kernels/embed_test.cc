#include "tests/kernels/backend_cases.h"

namespace spillway {
namespace {

using EmbedTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(EmbedTest);

void append_u16(std::vector<std::byte>& bytes, uint16_t value) {
  bytes.push_back(static_cast<std::byte>(value & 0xffu));
  bytes.push_back(static_cast<std::byte>(value >> 8));
}

// IEEE binary16 by its definition.
double f16_value(uint16_t bits) {
  const double sign = (bits & 0x8000u) != 0 ? -1 : 1;
  const int exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
  return exponent == 0 ? sign * std::ldexp(fraction, -24) : sign * std::ldexp(1024 + fraction, exponent - 25);
}

std::vector<float> embed(Backend& backend, const FileTensor& table, const std::vector<TokenId>& tokens) {
  std::vector<float> out(tokens.size() * table.cols, -77.0f);
  backend.embed({tokens, &table, view(out, {static_cast<uint32_t>(tokens.size()), table.cols})});
  return out;
}

TEST_P(EmbedTest, F32RowsAreCopiedBitForBit) {
  std::vector<float> values = Values(1).f32(5 * 7);
  values[10] = 0x1p-140f;  // a denormal stays one
  values[11] = -0.0f;
  const FileTensor table = f32_tensor(values, 5, 7);
  const std::vector<float> out = embed(*make(2), table, {4, 1, 1});
  for (uint32_t row = 0; row < 3; ++row) {
    EXPECT_TRUE(same_bits<float>(std::span(out).subspan(row * 7, 7), std::span(values).subspan(row == 0 ? 28 : 7, 7)));
  }
}

TEST_P(EmbedTest, Bf16RowsAreWidenedExactly) {
  const std::vector<uint16_t> values = Values(2).bf16(3 * 6);
  const FileTensor table{"test", StoredType::kBf16, 3, 6, std::as_bytes(std::span(values))};
  const std::vector<float> out = embed(*make(), table, {2, 0});
  for (uint32_t i = 0; i < 6; ++i) {
    EXPECT_EQ(out[i], f32_from_bf16(values[12 + i]));
    EXPECT_EQ(out[6 + i], f32_from_bf16(values[i]));
  }
}

// Scales of every kind: ordinary, negative, denormal, the largest.
constexpr uint16_t kScales[] = {0x3c00, 0x2e66, 0xb555, 0x0001, 0x83ff, 0x0400, 0x7bff};

TEST_P(EmbedTest, Q8RowsFollowTheDefinitionExactly) {
  for (const uint16_t scale : kScales) {
    std::vector<std::byte> bytes;
    for (uint32_t block = 0; block < 4; ++block) {  // two rows of 64
      append_u16(bytes, scale);
      for (uint32_t j = 0; j < 32; ++j) bytes.push_back(static_cast<std::byte>(block * 67 + j * 8));
    }
    const FileTensor table{"test", StoredType::kQ8_0, 2, 64, bytes};
    const std::vector<float> out = embed(*make(), table, {1, 0});
    for (uint32_t i = 0; i < 128; ++i) {
      const uint32_t stored = (i + 64) % 128, block = stored / 32, j = stored % 32;
      const auto q = static_cast<int8_t>(static_cast<uint8_t>(block * 67 + j * 8));
      ASSERT_EQ(double{out[i]}, f16_value(scale) * q) << scale << " at " << i;  // 19 bits: no rounding
    }
  }
}

TEST_P(EmbedTest, Q4RowsFollowTheDefinitionRoundedOnce) {
  for (const uint16_t scale : kScales) {
    for (const uint16_t minimum : {uint16_t{0x0000}, uint16_t{0xb800}, uint16_t{0x5001}}) {
      std::vector<std::byte> bytes;
      for (uint32_t block = 0; block < 2; ++block) {
        append_u16(bytes, scale);
        append_u16(bytes, minimum);
        for (uint32_t j = 0; j < 16; ++j) bytes.push_back(static_cast<std::byte>((block * 31 + j * 37) & 0xff));
      }
      const FileTensor table{"test", StoredType::kQ4_1, 1, 64, bytes};
      const std::vector<float> out = embed(*make(), table, {0});
      for (uint32_t i = 0; i < 64; ++i) {
        const uint32_t both = (i / 32 * 31 + i % 16 * 37) & 0xff, q = i % 32 < 16 ? both & 15 : both >> 4;
        ASSERT_EQ(out[i], static_cast<float>(f16_value(scale) * q + f16_value(minimum))) << scale << " at " << i;
      }
    }
  }
}

TEST_P(EmbedTest, PackedWeightsAreTheSameRows) {
  // The identity picks single weights out of a packed Q4_1 matrix.
  std::vector<std::byte> bytes;
  Values values(3);
  for (uint32_t block = 0; block < 70; ++block) {
    append_u16(bytes, 0x2c00);
    append_u16(bytes, 0xb3aa);
    for (uint32_t j = 0; j < 16; ++j) bytes.push_back(static_cast<std::byte>(values.below(256)));
  }
  const FileTensor table{"test", StoredType::kQ4_1, 70, 32, bytes};
  const auto backend = make();
  std::vector<TokenId> all(70);
  for (uint32_t i = 0; i < 70; ++i) all[i] = i;
  const std::vector<float> rows = embed(*backend, table, all);
  const Weight weight = backend->pack({&table, 1}, PackOrder::kRows);
  std::vector<uint16_t> identity(32 * 32);
  for (uint32_t i = 0; i < 32; ++i) identity[i * 33] = bf16_from_f32(1);
  std::vector<float> out(32 * 70);
  backend->gemm({view(identity, {32, 32}), &weight, Epilogue::kNone, view(out, {32, 70})});
  for (uint32_t k = 0; k < 32; ++k) {
    for (uint32_t n = 0; n < 70; ++n) ASSERT_EQ(out[k * 70 + n], rows[n * 32 + k]);
  }
}

TEST(Bf16, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(bf16_from_f32(1.0f), 0x3f80);
  EXPECT_EQ(bf16_from_f32(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // a tie: to even
  EXPECT_EQ(bf16_from_f32(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // a tie: to even, upwards
  EXPECT_EQ(bf16_from_f32(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(bf16_from_f32(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);  // the largest f32 is infinite
  EXPECT_TRUE(std::isnan(f32_from_bf16(bf16_from_f32(std::bit_cast<float>(0x7f800001u)))));
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float value = f32_from_bf16(static_cast<uint16_t>(bits));
    if (!std::isnan(value)) {
      ASSERT_EQ(bf16_from_f32(value), bits);
    }
  }
}

}  // namespace
}  // namespace spillway
