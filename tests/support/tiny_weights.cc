#include "tests/support/tiny_weights.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

constexpr uint32_t kBlockValues = 32, kKBlockValues = 256;

template <class T>
void put(std::vector<std::byte>& bytes, T value) {
  const size_t at = bytes.size();
  bytes.resize(at + sizeof value);
  std::memcpy(bytes.data() + at, &value, sizeof value);
}

// An IEEE binary16 near `magnitude` (normal numbers only) and what it is worth exactly.
struct Half {
  uint16_t bits = 0;
  float value = 0;
};
Half half_near(double magnitude, uint64_t random) {
  const int exponent = std::clamp(static_cast<int>(std::floor(std::log2(magnitude))), -14, 15);
  const auto fraction = static_cast<uint32_t>(random % 1024);
  return {.bits = static_cast<uint16_t>((static_cast<uint32_t>(exponent + 15) << 10) | fraction),
          .value = std::ldexp(1.0f + static_cast<float>(fraction) / 1024.0f, exponent)};
}

Half negative(Half half) { return {.bits = static_cast<uint16_t>(half.bits | 0x8000u), .value = -half.value}; }

void draw_plain(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const double limit = deviation * std::sqrt(3.0);
  for (size_t i = 0; i < size_t{tensor.rows} * tensor.cols; ++i) {
    auto value = static_cast<float>(random.uniform(-limit, limit));
    if (tensor.type == GgufType::kBf16) {
      const auto upper = static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
      value = std::bit_cast<float>(uint32_t{upper} << 16);
      put(tensor.bytes, upper);
    } else {
      put(tensor.bytes, value);
    }
    tensor.values.push_back(value);
  }
}

void draw_q8_0_block(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const Half scale = half_near(deviation * std::sqrt(3.0) / 127.0, random.next());
  put(tensor.bytes, scale.bits);
  for (uint32_t i = 0; i < kBlockValues; ++i) {
    const auto quant = static_cast<int8_t>(static_cast<int>(random.next() % 255) - 127);
    put(tensor.bytes, quant);
    tensor.values.push_back(scale.value * static_cast<float>(quant));
  }
}

void draw_q4_1_block(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const Half scale = half_near(deviation * std::sqrt(12.0) / 15.0, random.next());
  const Half minimum = negative(half_near(7.5 * scale.value, random.next()));
  put(tensor.bytes, scale.bits);
  put(tensor.bytes, minimum.bits);
  uint8_t quants[kBlockValues];
  for (uint8_t& quant : quants) {
    quant = static_cast<uint8_t>(random.next() % 16);
    tensor.values.push_back(scale.value * static_cast<float>(quant) + minimum.value);
  }
  for (uint32_t i = 0; i < kBlockValues / 2; ++i)  // value i in the low nibble, value i + 16 in the high one
    put(tensor.bytes, static_cast<uint8_t>(quants[i] | (quants[i + kBlockValues / 2] << 4)));
}

// Each value its own half, of either sign.
void draw_f16(TinyRandom& random, TinyTensor& tensor, double deviation) {
  for (size_t i = 0; i < size_t{tensor.rows} * tensor.cols; ++i) {
    const uint64_t bits = random.next();
    const Half drawn = half_near(deviation / 1.5, bits >> 1);
    const Half half = (bits & 1) != 0 ? negative(drawn) : drawn;
    put(tensor.bytes, half.bits);
    tensor.values.push_back(half.value);
  }
}

template <size_t N>
std::array<uint8_t, N> draw_quants(TinyRandom& random, uint32_t count) {
  std::array<uint8_t, N> quants;
  for (uint8_t& quant : quants) quant = static_cast<uint8_t>(random.next() % count);
  return quants;
}

// Two to a byte: the low halves of `count` values, then those of the next `count`.
void put_low_halves(std::vector<std::byte>& bytes, const uint8_t* quants, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i)
    put(bytes, static_cast<uint8_t>((quants[i] & 15) | (quants[i + count] & 15) << 4));
}

void draw_q4_0_block(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const Half scale = half_near(deviation * std::sqrt(12.0) / 15.0, random.next());
  const auto quants = draw_quants<kBlockValues>(random, 16);
  put(tensor.bytes, scale.bits);
  put_low_halves(tensor.bytes, quants.data(), kBlockValues / 2);
  for (const uint8_t quant : quants) tensor.values.push_back(scale.value * static_cast<float>(quant - 8));
}

// Q5_0 and Q5_1: the fifth bits of all values are one number.
void draw_q5_block(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const Half scale = half_near(deviation * std::sqrt(12.0) / 31.0, random.next());
  const Half minimum = negative(half_near(15.5 * scale.value, random.next()));
  const auto quants = draw_quants<kBlockValues>(random, 32);
  put(tensor.bytes, scale.bits);
  if (tensor.type == GgufType::kQ5_1) put(tensor.bytes, minimum.bits);
  uint32_t fifth = 0;
  for (uint32_t i = 0; i < kBlockValues; ++i) fifth |= static_cast<uint32_t>(quants[i] >> 4) << i;
  put(tensor.bytes, fifth);
  put_low_halves(tensor.bytes, quants.data(), kBlockValues / 2);
  for (const uint8_t quant : quants)
    tensor.values.push_back(tensor.type == GgufType::kQ5_1 ? scale.value * static_cast<float>(quant) + minimum.value
                                                           : scale.value * static_cast<float>(quant - 16));
}

// Q4_K and Q5_K: 8 groups of 32 values, each with a scale and a minimum of 6 bits.
void draw_k_block(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const bool five_bits = tensor.type == GgufType::kQ5_K;
  const double step = deviation * std::sqrt(12.0) / (five_bits ? 31.0 : 15.0);
  const Half scale = half_near(step / 48, random.next());
  const Half minimum = half_near(step * (five_bits ? 15.5 : 7.5) / 48, random.next());
  uint8_t s[8], t[8], packed[12];
  for (uint32_t group = 0; group < 8; ++group) {
    s[group] = static_cast<uint8_t>(random.next() % 64);
    t[group] = static_cast<uint8_t>(random.next() % 64);
  }
  for (uint32_t group = 0; group < 4; ++group) {
    packed[group] = static_cast<uint8_t>(s[group] | s[group + 4] >> 4 << 6);
    packed[group + 4] = static_cast<uint8_t>(t[group] | t[group + 4] >> 4 << 6);
    packed[group + 8] = static_cast<uint8_t>((s[group + 4] & 15) | (t[group + 4] & 15) << 4);
  }
  const auto quants = draw_quants<kKBlockValues>(random, five_bits ? 32 : 16);
  put(tensor.bytes, scale.bits);
  put(tensor.bytes, minimum.bits);
  for (const uint8_t byte : packed) put(tensor.bytes, byte);
  for (uint32_t i = 0; i < 32 && five_bits; ++i) {
    uint32_t fifth = 0;
    for (uint32_t group = 0; group < 8; ++group) fifth |= static_cast<uint32_t>(quants[group * 32 + i] >> 4) << group;
    put(tensor.bytes, static_cast<uint8_t>(fifth));
  }
  for (uint32_t pair = 0; pair < 4; ++pair) put_low_halves(tensor.bytes, quants.data() + pair * 64, 32);
  for (uint32_t i = 0; i < kKBlockValues; ++i)  // f64, so that only the last step rounds
    tensor.values.push_back(
        static_cast<float>(double{scale.value} * s[i / 32] * quants[i] - double{minimum.value} * t[i / 32]));
}

// 16 parts of 16 values, each with a scale of 8 bits; the upper two bits of a value lie apart from the others.
void draw_q6_k_block(TinyRandom& random, TinyTensor& tensor, double deviation) {
  const Half scale = half_near(deviation * std::sqrt(12.0) / 63.0 / 64, random.next());
  int8_t s[16];
  for (int8_t& part : s) part = static_cast<int8_t>(static_cast<int>(random.next() % 256) - 128);
  const auto quants = draw_quants<kKBlockValues>(random, 64);
  for (uint32_t half = 0; half < 2; ++half) put_low_halves(tensor.bytes, quants.data() + half * 128, 64);
  for (uint32_t half = 0; half < 2; ++half)
    for (uint32_t i = 0; i < 32; ++i) {
      uint32_t upper = 0;
      for (uint32_t quarter = 0; quarter < 4; ++quarter)
        upper |= static_cast<uint32_t>(quants[half * 128 + quarter * 32 + i] >> 4) << (2 * quarter);
      put(tensor.bytes, static_cast<uint8_t>(upper));
    }
  for (const int8_t part : s) put(tensor.bytes, part);
  put(tensor.bytes, scale.bits);
  for (uint32_t i = 0; i < kKBlockValues; ++i)
    tensor.values.push_back(static_cast<float>(double{scale.value} * s[i / 16] * (quants[i] - 32)));
}

}  // namespace

uint64_t TinyRandom::next() {
  uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}

double TinyRandom::uniform(double low, double high) {
  return low + (high - low) * static_cast<double>(next() >> 11) * 0x1p-53;
}

TinyTensor draw_matrix(TinyRandom& random, std::string name, GgufType type, uint32_t rows, uint32_t cols,
                       double deviation) {
  TinyTensor tensor{.name = std::move(name), .type = type, .rows = rows, .cols = cols, .bytes = {}, .values = {}};
  const auto draw_blocks = [&](uint32_t block_values, auto draw_block) {
    CHECK(cols % block_values == 0);
    for (size_t block = 0; block < size_t{rows} * cols / block_values; ++block) draw_block(random, tensor, deviation);
  };
  switch (type) {
    case GgufType::kF32:
    case GgufType::kBf16: draw_plain(random, tensor, deviation); break;
    case GgufType::kF16: draw_f16(random, tensor, deviation); break;
    case GgufType::kQ8_0: draw_blocks(kBlockValues, draw_q8_0_block); break;
    case GgufType::kQ4_0: draw_blocks(kBlockValues, draw_q4_0_block); break;
    case GgufType::kQ4_1: draw_blocks(kBlockValues, draw_q4_1_block); break;
    case GgufType::kQ5_0:
    case GgufType::kQ5_1: draw_blocks(kBlockValues, draw_q5_block); break;
    case GgufType::kQ4_K:
    case GgufType::kQ5_K: draw_blocks(kKBlockValues, draw_k_block); break;
    case GgufType::kQ6_K: draw_blocks(kKBlockValues, draw_q6_k_block); break;
  }
  return tensor;
}

TinyTensor draw_vector(TinyRandom& random, std::string name, uint32_t cols, double low, double high) {
  std::vector<float> values(cols);
  for (float& value : values) value = static_cast<float>(random.uniform(low, high));
  return vector_of(std::move(name), values);
}

TinyTensor vector_of(std::string name, const std::vector<float>& values) {
  TinyTensor tensor{.name = std::move(name),
                    .type = GgufType::kF32,
                    .rows = 1,
                    .cols = static_cast<uint32_t>(values.size()),
                    .bytes = {},
                    .values = values};
  for (const float value : values) put(tensor.bytes, value);
  return tensor;
}

}  // namespace spillway
