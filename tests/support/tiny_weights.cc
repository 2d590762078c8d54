#include "tests/support/tiny_weights.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

constexpr uint32_t kBlockValues = 32;

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
  Half minimum = half_near(7.5 * scale.value, random.next());
  minimum.bits |= 0x8000u;
  minimum.value = -minimum.value;
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
  if (type == GgufType::kF32 || type == GgufType::kBf16) {
    draw_plain(random, tensor, deviation);
    return tensor;
  }
  CHECK(cols % kBlockValues == 0);
  for (size_t block = 0; block < size_t{rows} * cols / kBlockValues; ++block) {
    if (type == GgufType::kQ8_0) {
      draw_q8_0_block(random, tensor, deviation);
    } else {
      draw_q4_1_block(random, tensor, deviation);
    }
  }
  return tensor;
}

TinyTensor draw_norm(TinyRandom& random, std::string name, uint32_t cols) {
  TinyTensor tensor{
      .name = std::move(name), .type = GgufType::kF32, .rows = 1, .cols = cols, .bytes = {}, .values = {}};
  for (uint32_t i = 0; i < cols; ++i) {
    const auto value = static_cast<float>(random.uniform(0.7, 1.3));
    put(tensor.bytes, value);
    tensor.values.push_back(value);
  }
  return tensor;
}

}  // namespace spillway
