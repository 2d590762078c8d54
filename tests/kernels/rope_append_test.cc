#include "kernels/rope_append.h"

#include "kernels/rope_table.h"
#include "tests/kernels/paged_kv.h"

namespace spillway {
namespace {

using RopeAppendTest = BackendTest;
SPILLWAY_FOR_EACH_ISA(RopeAppendTest);

constexpr uint16_t kHeads = 6, kKvHeads = 2, kDim = 32;
constexpr uint32_t kWidth = (kHeads + 2 * kKvHeads) * kDim;
constexpr double kTheta = 100000;
constexpr float kEpsilon = 1e-6f;
constexpr KvLayout kLayout{2, kKvHeads, kDim, 64};

struct Finish {
  std::vector<float> bias{}, q_norm{}, k_norm{};
};

std::vector<uint16_t> append(Backend& backend, PagedKv& kv, std::vector<float>& qkv,
                             const std::vector<TokenSpan>& spans, std::vector<float>& table, Finish finish = {},
                             uint16_t layer = 1) {
  const auto rows = static_cast<uint32_t>(qkv.size() / kWidth);
  std::vector<uint16_t> q(size_t{rows} * kHeads * kDim);
  const auto or_none = [](std::vector<float>& values) {
    return values.empty() ? TensorView{} : view(values, {static_cast<uint32_t>(values.size()), 1});
  };
  backend.rope_append({view(qkv, {rows, kWidth}), kv.table(), kv.arena(), layer, spans, kHeads,
                       view(table, {static_cast<uint32_t>(table.size() / kDim), kDim}), view(q, {rows, kHeads, kDim}),
                       or_none(finish.bias), or_none(finish.q_norm), or_none(finish.k_norm), kEpsilon});
  return q;
}

std::vector<float> rope_table(uint32_t positions) {
  std::vector<float> table(size_t{positions} * kDim);
  fill_rope_table({.theta_base = kTheta}, kDim, table);
  return table;
}

// Element `dim` of a head rotated by position, in f64.
template <class T>
double rotated(const T* head, uint32_t dim, uint32_t position) {
  const double angle = position * std::pow(kTheta, -static_cast<double>(dim / 2 * 2) / kDim);
  const double a = head[dim / 2 * 2], b = head[dim / 2 * 2 + 1];
  return dim % 2 == 0 ? a * std::cos(angle) - b * std::sin(angle) : a * std::sin(angle) + b * std::cos(angle);
}

double tolerance(double expected) { return std::abs(expected) * 0x1.01p-8 + 1e-6; }

TEST_P(RopeAppendTest, MatchesF64AlsoFarOut) {
  std::vector<float> table = rope_table(100'004);
  for (const uint32_t position : {0u, 1u, 63u, 64u, 4095u, 100'000u}) {
    PagedKv kv(kLayout, {slots_from(0, 100'004 / 64 + 1)});
    std::vector<float> qkv = Values(position).f32(3 * kWidth);
    const std::vector<uint16_t> q = append(*make(), kv, qkv, {{0, 3, position, 0}}, table);
    for (uint32_t row = 0; row < 3; ++row) {
      const float* source = &qkv[row * kWidth];
      for (uint32_t i = 0; i < kHeads * kDim; ++i) {
        const double expected = rotated(source + i / kDim * kDim, i % kDim, position + row);
        ASSERT_NEAR(f32_from_bf16(q[row * kHeads * kDim + i]), expected, tolerance(expected)) << position;
      }
      for (uint32_t i = 0; i < kKvHeads * kDim; ++i) {
        const double expected = rotated(source + (kHeads + i / kDim) * kDim, i % kDim, position + row);
        const float k = f32_from_bf16(kv.k(0, position + row, 1, i / kDim, i % kDim));
        ASSERT_NEAR(k, expected, tolerance(expected)) << position;
        ASSERT_EQ(kv.v(0, position + row, 1, i / kDim, i % kDim),
                  bf16_from_f32(source[(kHeads + kKvHeads) * kDim + i]));
      }
    }
  }
}

// Row `row` of a product with bias and norms, in f64.
std::vector<double> finished(const float* row, const Finish& finish) {
  std::vector<double> values(row, row + kWidth);
  for (size_t i = 0; i < finish.bias.size(); ++i) values[i] += finish.bias[i];
  for (uint32_t head = 0; head < kHeads + kKvHeads; ++head) {
    const std::vector<float>& weight = head < kHeads ? finish.q_norm : finish.k_norm;
    if (weight.empty()) continue;
    double* const x = &values[size_t{head} * kDim];
    double sum = 0;
    for (uint32_t i = 0; i < kDim; ++i) sum += x[i] * x[i];
    for (uint32_t i = 0; i < kDim; ++i) x[i] *= weight[i] / std::sqrt(sum / kDim + static_cast<double>(kEpsilon));
  }
  return values;
}

TEST_P(RopeAppendTest, AddsTheBiasThenNormalisesQAndKThenRotates) {
  constexpr uint32_t kRows = 67, kFirst = 40;
  std::vector<float> table = rope_table(kFirst + kRows);
  Values values(8);
  const std::vector<float> bias = values.f32(kWidth), q_norm = values.f32(kDim), k_norm = values.f32(kDim);
  for (const Finish& finish : {Finish{.bias = bias}, Finish{.q_norm = q_norm, .k_norm = k_norm},
                               Finish{.bias = bias, .q_norm = q_norm, .k_norm = k_norm}}) {
    PagedKv kv(kLayout, {{0, 1}});
    std::vector<float> qkv = Values(9).f32(kRows * kWidth);
    const std::vector<uint16_t> q = append(*make(2), kv, qkv, {{0, kRows, kFirst, 0}}, table, finish);
    for (uint32_t row = 0; row < kRows; ++row) {
      const std::vector<double> source = finished(&qkv[row * kWidth], finish);
      const uint32_t position = kFirst + row;
      for (uint32_t i = 0; i < kHeads * kDim; ++i) {
        const double expected = rotated(&source[i / kDim * kDim], i % kDim, position);
        ASSERT_NEAR(f32_from_bf16(q[row * kHeads * kDim + i]), expected, tolerance(expected));
      }
      for (uint32_t i = 0; i < kKvHeads * kDim; ++i) {
        const double k = rotated(&source[(kHeads + i / kDim) * kDim], i % kDim, position);
        ASSERT_NEAR(f32_from_bf16(kv.k(0, position, 1, i / kDim, i % kDim)), k, tolerance(k));
        const double v = source[(kHeads + kKvHeads) * kDim + i];
        ASSERT_NEAR(f32_from_bf16(kv.v(0, position, 1, i / kDim, i % kDim)), v, tolerance(v));
      }
    }
  }
}

TEST_P(RopeAppendTest, PartBytesDependNeitherOnChunksNorThreadsNorRepetition) {
  constexpr uint32_t kTokens = 150;
  std::vector<float> table = rope_table(kTokens), qkv = Values(5).f32(kTokens * kWidth);
  Values values(10);
  const Finish finish{.bias = values.f32(kWidth), .q_norm = values.f32(kDim), .k_norm = values.f32(kDim)};
  PagedKv whole(kLayout, {{2, 0, 1}});
  const std::vector<uint16_t> q = append(*make(1), whole, qkv, {{0, kTokens, 0, 0}}, table, finish);
  for (const uint32_t chunk : {1u, 17u, 64u, 150u}) {
    const auto backend = make(2);
    PagedKv kv(kLayout, {{2, 0, 1}});
    for (uint32_t first = 0; first < kTokens; first += chunk) {
      const uint32_t rows = std::min(chunk, kTokens - first);
      std::vector<float> part(qkv.begin() + first * kWidth, qkv.begin() + (first + rows) * kWidth);
      for (int time = 0; time < 2; ++time) {  // an abandoned step appends again
        const std::vector<uint16_t> out = append(*backend, kv, part, {{0, rows, first, 0}}, table, finish);
        ASSERT_TRUE(same_bits<uint16_t>(out, std::span(q).subspan(first * kHeads * kDim, out.size())));
      }
    }
    for (const uint32_t slot : {0u, 1u, 2u}) {
      ASSERT_TRUE(
          same_bits<std::byte>(whole.arena().parts(SlotId{slot}, {1, 1}), kv.arena().parts(SlotId{slot}, {1, 1})));
    }
  }
}

TEST_P(RopeAppendTest, UnusedRowsAreZeroAndOtherPartsUntouched) {
  std::vector<float> table = rope_table(70), qkv = Values(6).f32(66 * kWidth);
  PagedKv kv(kLayout, {{0, 2}});  // every byte NaN before; slot 1 is nobody's
  append(*make(), kv, qkv, {{0, 66, 0, 0}}, table);
  for (uint32_t token = 66; token < 128; ++token) {
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      for (uint32_t dim = 0; dim < kDim; ++dim) {
        ASSERT_EQ(kv.k(0, token, 1, head, dim), 0);
        ASSERT_EQ(kv.v(0, token, 1, head, dim), 0);
      }
    }
  }
  const auto untouched = [&](SlotId slot, uint16_t layer) {
    const std::span<std::byte> part = kv.arena().parts(slot, {layer, 1});
    const auto* values = reinterpret_cast<const uint16_t*>(part.data());
    return std::all_of(values, values + part.size() / 2, [](uint16_t value) { return value == PagedKv::kNan; });
  };
  EXPECT_TRUE(untouched(SlotId{0}, 0));
  EXPECT_TRUE(untouched(SlotId{2}, 0));
  EXPECT_TRUE(untouched(SlotId{1}, 1));
  const std::span<std::byte> part = kv.arena().parts(SlotId{2}, {1, 1});
  EXPECT_TRUE(std::all_of(part.begin() + 2 * kLayout.k_bytes(), part.end(), [](std::byte b) {
    return b == std::byte{};
  })) << "padding of the page is part of the digest";
}

TEST_P(RopeAppendTest, SequencesOfABatchGoToTheirOwnBlocks) {
  std::vector<float> table = rope_table(80), qkv = Values(7).f32(3 * kWidth);
  PagedKv kv(kLayout, {{0, 1}, {2, 3}});
  append(*make(2), kv, qkv, {{0, 1, 70, 1}, {1, 2, 5, 0}}, table);
  const float* v = &qkv[(kHeads + kKvHeads) * kDim];
  EXPECT_EQ(kv.v(1, 70, 1, 1, 3), bf16_from_f32(v[kDim + 3]));
  EXPECT_EQ(kv.v(0, 5, 1, 1, 3), bf16_from_f32(v[kWidth + kDim + 3]));
  EXPECT_EQ(kv.v(0, 6, 1, 0, 31), bf16_from_f32(v[2 * kWidth + 31]));
}

}  // namespace
}  // namespace spillway
