#include "kernels/cpu/stored_blocks.h"

namespace spillway::cpu {
namespace {

constexpr uint32_t kGroup = 32;  // values that share s and t (Q4_K, Q5_K)

struct BlockQ4K {
  static constexpr uint32_t kValues = 256;
  uint16_t d, m;
  uint8_t scales[12];
  uint8_t q[128];  // 32 bytes for 64 values: the first 32 in the low halves, the next 32 in the high ones
};
struct BlockQ5K {
  static constexpr uint32_t kValues = 256;
  uint16_t d, m;
  uint8_t scales[12];
  uint8_t high[32];  // byte l, bit g: the fifth bit of value l of group g
  uint8_t q[128];    // as in Q4_K
};
struct BlockQ6K {
  static constexpr uint32_t kValues = 256;
  uint8_t low[128];  // 64 bytes for 128 values: the first 64 in the low halves, the next 64 in the high ones
  uint8_t high[64];  // 32 bytes for 128 values: bits 2i and 2i + 1 of byte l are the upper ones of value l + 32i
  int8_t scales[16];
  uint16_t d;
};
static_assert(sizeof(BlockQ4K) == 144 && sizeof(BlockQ5K) == 176 && sizeof(BlockQ6K) == 210);

// 8 scales and 8 minima of 6 bits: those of groups 0 to 3 in the lower bits of bytes 0 to 3 and 4 to 7; of groups 4 to
// 7 four bits are in bytes 8 to 11, scale below minimum, and the upper two in the two bits that the first ones left.
struct ScaleAndMinimum {
  int s, t;
};
ScaleAndMinimum scale_and_minimum(const uint8_t (&scales)[12], uint32_t group) {
  if (group < 4) return {scales[group] & 63, scales[group + 4] & 63};
  return {(scales[group + 4] & 15) | (scales[group - 4] >> 6) << 4, (scales[group + 4] >> 4) | (scales[group] >> 6)
                                                                                                   << 4};
}

constexpr uint32_t kGroupScales = kGroup / Codes::kPerScale;

// d and m of group `group`, of either type.
template <class Block>
void set_scales(const Block& block, uint32_t group, Codes& out) {
  const auto [s, t] = scale_and_minimum(block.scales, group);
  for (uint32_t i = 0; i < kGroupScales; ++i) {
    out.d[group * kGroupScales + i] = f32_from_f16(block.d) * static_cast<float>(s);
    out.m[group * kGroupScales + i] = -(f32_from_f16(block.m) * static_cast<float>(t));
  }
}

void unpack(const BlockQ4K& block, Codes& out) {
  for (uint32_t group = 0; group < 8; ++group) set_scales(block, group, out);
  for (uint32_t pair = 0; pair < 4; ++pair) {
    uint8_t* const codes = out.codes + 2 * pair * kGroup;
    for (uint32_t l = 0; l < kGroup; ++l) {
      codes[l] = block.q[pair * kGroup + l] & 15;
      codes[l + kGroup] = block.q[pair * kGroup + l] >> 4;
    }
  }
}

void unpack(const BlockQ5K& block, Codes& out) {
  for (uint32_t group = 0; group < 8; ++group) set_scales(block, group, out);
  for (uint32_t pair = 0; pair < 4; ++pair) {
    uint8_t* const codes = out.codes + 2 * pair * kGroup;
    for (uint32_t l = 0; l < kGroup; ++l) {
      const int bits = block.high[l] >> (2 * pair), q = block.q[pair * kGroup + l];
      codes[l] = static_cast<uint8_t>((q & 15) | (bits & 1) << 4);
      codes[l + kGroup] = static_cast<uint8_t>((q >> 4) | (bits & 2) << 3);
    }
  }
}

void unpack(const BlockQ6K& block, Codes& out) {
  constexpr uint32_t kPerScale = Codes::kPerScale;
  for (uint32_t part = 0; part < BlockQ6K::kValues / kPerScale; ++part) {
    const uint32_t half = part / 8, quarter = part / 2 % 4, first = part % 2 * kPerScale;
    const uint8_t* const low = block.low + half * 64 + quarter % 2 * 32 + first;
    const uint8_t* const high = block.high + half * 32 + first;
    const uint32_t low_shift = quarter / 2 * 4, high_shift = quarter * 2;
    for (uint32_t l = 0; l < kPerScale; ++l)
      out.codes[part * kPerScale + l] =
          static_cast<uint8_t>((low[l] >> low_shift & 15) | (high[l] >> high_shift & 3) << 4);
    out.d[part] = f32_from_f16(block.d) * static_cast<float>(block.scales[part]);
    out.m[part] = -32 * out.d[part];
  }
}

template <class Block>
void scale(const Block& block, float* values) {
  Codes codes;
  unpack(block, codes);
  for (uint32_t j = 0; j < Block::kValues; ++j)
    values[j] = codes.d[j / Codes::kPerScale] * static_cast<float>(codes.codes[j]) + codes.m[j / Codes::kPerScale];
}

template <class Block>
void read_codes(const std::byte* bytes, Codes& out) {
  Block block;
  std::memcpy(&block, bytes, sizeof block);
  unpack(block, out);
}

}  // namespace

void decode_q4_k(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ4K>(blocks, count, out, [](const BlockQ4K& block, float* values) { scale(block, values); });
}

void decode_q5_k(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ5K>(blocks, count, out, [](const BlockQ5K& block, float* values) { scale(block, values); });
}

void decode_q6_k(const std::byte* blocks, size_t count, float* out) {
  decode_each<BlockQ6K>(blocks, count, out, [](const BlockQ6K& block, float* values) {
    Codes codes;
    unpack(block, codes);
    for (uint32_t j = 0; j < BlockQ6K::kValues; ++j)
      values[j] = codes.d[j / Codes::kPerScale] * static_cast<float>(codes.codes[j] - 32);
  });
}

void read_q4_k(const std::byte* block, Codes& out) { read_codes<BlockQ4K>(block, out); }
void read_q5_k(const std::byte* block, Codes& out) { read_codes<BlockQ5K>(block, out); }
void read_q6_k(const std::byte* block, Codes& out) { read_codes<BlockQ6K>(block, out); }

}  // namespace spillway::cpu
