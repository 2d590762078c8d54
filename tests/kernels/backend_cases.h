#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "common/check.h"
#include "kernels/bf16.h"
#include "kernels/make_backend.h"
#include "kernels/numerics.h"

// Shared by all cases of operations: every test runs once per ISA level of this machine.
namespace spillway {

class BackendTest : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Backend> make(uint32_t threads = 1) const { return make_backend({GetParam(), threads}); }
};

#define SPILLWAY_FOR_EACH_ISA(suite)                                                          \
  INSTANTIATE_TEST_SUITE_P(Isa, suite, testing::ValuesIn(::spillway::available_isa_levels()), \
                           [](const auto& isa_level) { return isa_level.param; })

// Uniform in [-1, 1), the same on every machine.
class Values {
 public:
  explicit Values(uint32_t seed) : random_(seed) {}
  float next() { return static_cast<float>(random_()) * 0x1p-31f - 1.0f; }
  uint32_t below(uint32_t bound) { return static_cast<uint32_t>(random_()) % bound; }
  std::vector<float> f32(size_t count) {
    std::vector<float> values(count);
    for (float& value : values) value = next();
    return values;
  }
  std::vector<uint16_t> bf16(size_t count) {
    std::vector<uint16_t> values(count);
    for (uint16_t& value : values) value = bf16_from_f32(next());
    return values;
  }

 private:
  std::mt19937 random_;
};

template <class T>
TensorView view(std::vector<T>& values, std::array<uint32_t, 3> shape) {
  size_t count = 1;
  for (uint32_t& extent : shape) count *= extent = std::max(extent, 1u);
  EXPECT_EQ(values.size(), count);
  constexpr DataType type = std::is_same_v<T, float>      ? DataType::kF32
                            : std::is_same_v<T, uint16_t> ? DataType::kBf16
                                                          : DataType::kU32;
  return {reinterpret_cast<std::byte*>(values.data()), type, shape};
}

template <class T>
bool same_bits(std::span<const T> a, std::span<const T> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// A matrix in memory as a file would hold it.
inline FileTensor f32_tensor(const std::vector<float>& values, uint32_t rows, uint32_t cols) {
  return {"test", StoredType::kF32, rows, cols, std::as_bytes(std::span(values))};
}

// A value as a bf16 operand carries it.
inline double rounded(float value) { return f32_from_bf16(bf16_from_f32(value)); }

}  // namespace spillway
