#include "kernels/cpu/stored_blocks.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kHalf = 16;  // byte j of 4-bit values holds value j in its low half and value j + 16 in its high one

struct BlockQ8_0 {
  static constexpr uint32_t kValues = 32;
  uint16_t d;
  int8_t q[32];
};
struct BlockQ4_0 {
  static constexpr uint32_t kValues = 32;
  uint16_t d;
  uint8_t q[16];
};
struct BlockQ4_1 {
  static constexpr uint32_t kValues = 32;
  uint16_t d, m;
  uint8_t q[16];
};
struct BlockQ5_0 {
  static constexpr uint32_t kValues = 32;
  uint16_t d, high[2];  // high[0]: the fifth bits of values 0 to 15, high[1]: of 16 to 31
  uint8_t q[16];
};
struct BlockQ5_1 {
  static constexpr uint32_t kValues = 32;
  uint16_t d, m, high[2];
  uint8_t q[16];
};
static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);

// The 32 numbers of a block, first as bytes: the loop that makes floats of them then is plain vector code.
struct Quants {
  int8_t q[32];
};

Quants unpack_4_bits(const uint8_t (&bytes)[16], int offset) {
  Quants quants;
  for (uint32_t j = 0; j < kHalf; ++j) {
    quants.q[j] = static_cast<int8_t>((bytes[j] & 15) - offset);
    quants.q[j + kHalf] = static_cast<int8_t>((bytes[j] >> 4) - offset);
  }
  return quants;
}

Quants unpack_5_bits(const uint8_t (&bytes)[16], const uint16_t (&high)[2], int offset) {
  Quants quants;
  for (uint32_t j = 0; j < kHalf; ++j) {
    const int low_bit = (high[0] >> j) & 1, high_bit = (high[1] >> j) & 1;
    quants.q[j] = static_cast<int8_t>(((bytes[j] & 15) | low_bit << 4) - offset);
    quants.q[j + kHalf] = static_cast<int8_t>(((bytes[j] >> 4) | high_bit << 4) - offset);
  }
  return quants;
}

template <class Block>
Block copy_of(const std::byte* bytes) {
  Block block;
  std::memcpy(&block, bytes, sizeof block);
  return block;
}

// Where a value is d * (code - offset): m = -offset * d, exact in f32.
void set_codes(const Quants& codes, float d, float m, Codes& out) {
  std::memcpy(out.codes, codes.q, sizeof codes.q);
  out.d[0] = out.d[1] = d;
  out.m[0] = out.m[1] = m;
}

void scale(const Quants& quants, float d, float* out) {
  for (uint32_t j = 0; j < 2 * kHalf; ++j) out[j] = d * static_cast<float>(quants.q[j]);
}

void scale(const Quants& quants, float d, float m, float* out) {
  for (uint32_t j = 0; j < 2 * kHalf; ++j) out[j] = d * static_cast<float>(quants.q[j]) + m;
}

}  // namespace

void decode_q8_0(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ8_0>(blocks, count, out, [](const BlockQ8_0& block, float* values) {
    const float d = f32_from_f16(block.d);
    for (uint32_t j = 0; j < BlockQ8_0::kValues; ++j) values[j] = d * static_cast<float>(block.q[j]);
  });
}

void decode_q4_0(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ4_0>(blocks, count, out, [](const BlockQ4_0& block, float* values) {
    scale(unpack_4_bits(block.q, 8), f32_from_f16(block.d), values);
  });
}

void decode_q4_1(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ4_1>(blocks, count, out, [](const BlockQ4_1& block, float* values) {
    scale(unpack_4_bits(block.q, 0), f32_from_f16(block.d), f32_from_f16(block.m), values);
  });
}

void decode_q5_0(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ5_0>(blocks, count, out, [](const BlockQ5_0& block, float* values) {
    scale(unpack_5_bits(block.q, block.high, 16), f32_from_f16(block.d), values);
  });
}

void decode_q5_1(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ5_1>(blocks, count, out, [](const BlockQ5_1& block, float* values) {
    scale(unpack_5_bits(block.q, block.high, 0), f32_from_f16(block.d), f32_from_f16(block.m), values);
  });
}

void read_q8_0(const std::byte* bytes, Codes& out) {
  const auto block = copy_of<BlockQ8_0>(bytes);
  const float d = f32_from_f16(block.d);
  Quants codes;
  for (uint32_t j = 0; j < BlockQ8_0::kValues; ++j) codes.q[j] = static_cast<int8_t>(block.q[j] ^ 0x80);
  set_codes(codes, d, -128 * d, out);
}

void read_q4_0(const std::byte* bytes, Codes& out) {
  const auto block = copy_of<BlockQ4_0>(bytes);
  const float d = f32_from_f16(block.d);
  set_codes(unpack_4_bits(block.q, 0), d, -8 * d, out);
}

void read_q4_1(const std::byte* bytes, Codes& out) {
  const auto block = copy_of<BlockQ4_1>(bytes);
  set_codes(unpack_4_bits(block.q, 0), f32_from_f16(block.d), f32_from_f16(block.m), out);
}

void read_q5_0(const std::byte* bytes, Codes& out) {
  const auto block = copy_of<BlockQ5_0>(bytes);
  const float d = f32_from_f16(block.d);
  set_codes(unpack_5_bits(block.q, block.high, 0), d, -16 * d, out);
}

void read_q5_1(const std::byte* bytes, Codes& out) {
  const auto block = copy_of<BlockQ5_1>(bytes);
  set_codes(unpack_5_bits(block.q, block.high, 0), f32_from_f16(block.d), f32_from_f16(block.m), out);
}

}  // namespace spillway::cpu
