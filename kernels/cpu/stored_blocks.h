#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace spillway::cpu {

// Decoders of the stored types, for kernels/cpu/dequantize: `count` blocks one after the other, at any address, to f32.
using DecodeBlocks = void(const std::byte* blocks, size_t count, float* out);

DecodeBlocks decode_f32, decode_f16, decode_bf16;                              // 1 value; stored_values.cc
DecodeBlocks decode_q8_0, decode_q4_0, decode_q4_1, decode_q5_0, decode_q5_1;  // 32 values; stored_blocks.cc
DecodeBlocks decode_q4_k, decode_q5_k, decode_q6_k;                            // 256 values; stored_k_blocks.cc

// The quantised types as codes: each value of one block is fma(code, d, m) of its 16 neighbours, with the bits of
// decode_* but for the sign of a zero, which no sum shows.
struct Codes {
  static constexpr uint32_t kValuesMax = 256, kPerScale = 16;
  uint8_t codes[kValuesMax];
  float d[kValuesMax / kPerScale], m[kValuesMax / kPerScale];
};
using ReadCodes = void(const std::byte* block, Codes& out);

ReadCodes read_q8_0, read_q4_0, read_q4_1, read_q5_0, read_q5_1;  // 32 values; stored_blocks.cc
ReadCodes read_q4_k, read_q5_k, read_q6_k;                        // 256 values; stored_k_blocks.cc

// IEEE binary16, exactly. With a mask in place of the last choice, which the compiler would make a branch (a float
// product might trap), so that loops over this become vector code.
inline float f32_from_f16(uint16_t bits) {
  const int32_t magnitude = bits & 0x7fff;
  const int32_t rebias = magnitude >= 0x7c00 ? 224 << 23 : 112 << 23;  // infinity and NaN keep the highest exponent
  const auto tiny = std::bit_cast<int32_t>(static_cast<float>(magnitude) * 0x1p-24f);
  const int32_t is_tiny = -static_cast<int32_t>(magnitude < 0x400);
  const int32_t absolute = (tiny & is_tiny) | (((magnitude << 13) + rebias) & ~is_tiny);
  return std::bit_cast<float>(static_cast<uint32_t>(absolute) | (bits & 0x8000u) << 16);
}

// The other way, for what an f16 holds exactly; infinity and NaN stay so.
inline uint16_t f16_from_f32(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7e00;
  if (magnitude == 0x7f800000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude >= 113u << 23) return static_cast<uint16_t>(sign | (magnitude - (112u << 23)) >> 13);
  return static_cast<uint16_t>(sign | static_cast<uint32_t>(std::bit_cast<float>(magnitude) * 0x1p24f));
}
inline constexpr float kF16Max = 65504;

// Calls decode(block, out) for each. A block is copied first: what is read then cannot lie under what is written, which
// is what lets the compiler use vectors.
template <class Block, class Decode>
void decode_each(const std::byte* blocks, size_t count, float* out, const Decode& decode) {
  for (; count > 0; --count, blocks += sizeof(Block), out += Block::kValues) {
    Block block;
    std::memcpy(&block, blocks, sizeof block);
    decode(block, out);
  }
}

}  // namespace spillway::cpu
