#include "kernels/rope_append.h"

#include <limits>

#include "kernels/rope_table.h"
#include "tests/kernels/paged_kv.h"

namespace spillway {
namespace {

using RopeAppendTest = KvTest;
SPILLWAY_FOR_EACH_ISA_AND_KV_DTYPE(RopeAppendTest);
using Which = PagedKv::Which;

constexpr uint16_t kHeads = 6, kKvHeads = 2, kDim = 32;
constexpr uint32_t kWidth = (kHeads + 2 * kKvHeads) * kDim;
constexpr double kTheta = 100000;
constexpr float kEpsilon = 1e-6f;
KvLayout layout_of(KvDtype dtype) { return {2, kKvHeads, kDim, 64, dtype}; }

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

double tolerance(double expected) { return std::abs(expected) * 0x1.01p-8 + 1e-6; }  // of a bf16

// Row `head` of K or V at `token` of layer 1 is `expected`, but for its rounding: of int8 half a step at most.
void expect_row(PagedKv& kv, KvDtype dtype, Which which, uint32_t token, uint32_t head,
                const std::vector<double>& expected) {
  double highest = 0;
  for (const double value : expected) highest = std::max(highest, std::abs(value));
  const std::vector<float> row = kv.row(which, 0, token, 1, head);
  for (uint32_t dim = 0; dim < kDim; ++dim)
    ASSERT_NEAR(row[dim], expected[dim],
                dtype == KvDtype::kInt8 ? highest / 127 * 0.501 + 1e-6 : tolerance(expected[dim]))
        << "token " << token << " head " << head << " dim " << dim;
}

TEST_P(RopeAppendTest, MatchesF64AlsoFarOut) {
  std::vector<float> table = rope_table(100'004);
  for (const uint32_t position : {0u, 1u, 63u, 64u, 4095u, 100'000u}) {
    PagedKv kv(layout_of(dtype()), {slots_from(0, 100'004 / 64 + 1)});
    std::vector<float> qkv = Values(position).f32(3 * kWidth);
    const std::vector<uint16_t> q = append(*make(), kv, qkv, {{0, 3, position, 0}}, table);
    for (uint32_t row = 0; row < 3; ++row) {
      const float* source = &qkv[row * kWidth];
      for (uint32_t i = 0; i < kHeads * kDim; ++i) {
        const double expected = rotated(source + i / kDim * kDim, i % kDim, position + row);
        ASSERT_NEAR(f32_from_bf16(q[row * kHeads * kDim + i]), expected, tolerance(expected)) << position;
      }
      for (uint32_t head = 0; head < kKvHeads; ++head) {
        std::vector<double> k(kDim), v(kDim);
        for (uint32_t dim = 0; dim < kDim; ++dim) {
          k[dim] = rotated(source + (kHeads + head) * kDim, dim, position + row);
          v[dim] = source[(kHeads + kKvHeads + head) * kDim + dim];
        }
        expect_row(kv, dtype(), Which::kK, position + row, head, k);
        expect_row(kv, dtype(), Which::kV, position + row, head, v);
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
    PagedKv kv(layout_of(dtype()), {{0, 1}});
    std::vector<float> qkv = Values(9).f32(kRows * kWidth);
    const std::vector<uint16_t> q = append(*make(2), kv, qkv, {{0, kRows, kFirst, 0}}, table, finish);
    for (uint32_t row = 0; row < kRows; ++row) {
      const std::vector<double> source = finished(&qkv[row * kWidth], finish);
      const uint32_t position = kFirst + row;
      for (uint32_t i = 0; i < kHeads * kDim; ++i) {
        const double expected = rotated(&source[i / kDim * kDim], i % kDim, position);
        ASSERT_NEAR(f32_from_bf16(q[row * kHeads * kDim + i]), expected, tolerance(expected));
      }
      for (uint32_t head = 0; head < kKvHeads; ++head) {
        std::vector<double> k(kDim), v(kDim);
        for (uint32_t dim = 0; dim < kDim; ++dim) {
          k[dim] = rotated(&source[(kHeads + head) * kDim], dim, position);
          v[dim] = source[(kHeads + kKvHeads + head) * kDim + dim];
        }
        expect_row(kv, dtype(), Which::kK, position, head, k);
        expect_row(kv, dtype(), Which::kV, position, head, v);
      }
    }
  }
}

TEST_P(RopeAppendTest, PartBytesDependNeitherOnChunksNorThreadsNorRepetition) {
  constexpr uint32_t kTokens = 150;
  std::vector<float> table = rope_table(kTokens), qkv = Values(5).f32(kTokens * kWidth);
  Values values(10);
  const Finish finish{.bias = values.f32(kWidth), .q_norm = values.f32(kDim), .k_norm = values.f32(kDim)};
  PagedKv whole(layout_of(dtype()), {{2, 0, 1}});
  const std::vector<uint16_t> q = append(*make(1), whole, qkv, {{0, kTokens, 0, 0}}, table, finish);
  for (const uint32_t chunk : {1u, 17u, 64u, 150u}) {
    const auto backend = make(2);
    PagedKv kv(layout_of(dtype()), {{2, 0, 1}});
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
  PagedKv kv(layout_of(dtype()), {{0, 2}});  // every byte NaN before; slot 1 is nobody's
  append(*make(), kv, qkv, {{0, 66, 0, 0}}, table);
  for (uint32_t token = 66; token < 128; ++token) {
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      for (const Which which : {Which::kK, Which::kV}) {
        for (uint32_t dim = 0; dim < kDim; ++dim) ASSERT_EQ(kv.stored(which, 0, token, 1, head, dim), 0);
        if (dtype() == KvDtype::kInt8) {
          ASSERT_EQ(kv.scale(which, 0, token, 1, head), 0);
        }
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
  const auto used = static_cast<std::ptrdiff_t>(64 * layout_of(dtype()).token_bytes());
  EXPECT_TRUE(std::all_of(part.begin() + used, part.end(), [](std::byte b) { return b == std::byte{}; }))
      << "padding of the page is part of the digest";
}

TEST_P(RopeAppendTest, SequencesOfABatchGoToTheirOwnBlocks) {
  std::vector<float> table = rope_table(80), qkv = Values(7).f32(3 * kWidth);
  PagedKv kv(layout_of(dtype()), {{0, 1}, {2, 3}});
  append(*make(2), kv, qkv, {{0, 1, 70, 1}, {1, 2, 5, 0}}, table);
  const float* v = &qkv[(kHeads + kKvHeads) * kDim];
  constexpr double kStep = 1.0 / 127;  // values are below 1
  EXPECT_NEAR(kv.v(1, 70, 1, 1, 3), v[kDim + 3], kStep);
  EXPECT_NEAR(kv.v(0, 5, 1, 1, 3), v[kWidth + kDim + 3], kStep);
  EXPECT_NEAR(kv.v(0, 6, 1, 0, 31), v[2 * kWidth + 31], kStep);
}

// Rows of V, which nothing changes before they are rounded; and of K at position 0, where the angle is 0.
TEST_P(RopeAppendTest, Int8RowsAreTheNearestCodesAndShowWhatIsNotFinite) {
  if (dtype() != KvDtype::kInt8) GTEST_SKIP() << "of int8 alone";
  constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();
  struct Case {
    const char* name;
    std::vector<float> first;  // the row's first values; the others are 0
    float scale;
    std::vector<int> codes;
  };
  const Case cases[] = {
      {"zeros", {0.0f, -0.0f}, 0.0f, {0, 0}},
      {"ties go to even", {127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f}, 1.0f, {127, 0, 2, 2, 0, -2, -126}},
      {"the lowest", {-254, 253, 1}, 2.0f, {-127, 126, 0}},
      {"as large as f32 goes", {0x1.fffffep127f, -0x1.fffffep127f}, 0x1.fffffep127f / 127.0f, {127, -127}},
      {"small ones", {0x1p-100f, 0x1p-101f}, 0x1p-100f / 127.0f, {127, 64}},
      {"a scale that would be denormal", {0x1p-122f, -0x1p-123f}, 0.0f, {0, 0}},
      {"denormals", {0x1p-130f, 0x1p-149f}, 0.0f, {0, 0}},
      {"NaN", {1, kNaN, 2}, kNaN, {0, 0, 0}},
      {"infinity", {-kInf, 1}, kNaN, {0, 0}},
      {"both", {kInf, 1, -kNaN}, kNaN, {0, 0, 0}}};
  std::vector<float> table = rope_table(1);
  for (const Case& one : cases) {
    PagedKv kv(layout_of(dtype()), {{0}});
    std::vector<float> qkv(kWidth, 1.0f);
    for (uint32_t i = kHeads * kDim; i < kWidth; ++i) qkv[i] = i % kDim < one.first.size() ? one.first[i % kDim] : 0;
    append(*make(), kv, qkv, {{0, 1, 0, 0}}, table);
    for (uint32_t head = 0; head < kKvHeads; ++head) {
      const float v_scale = kv.scale(Which::kV, 0, 0, 1, head), k_scale = kv.scale(Which::kK, 0, 0, 1, head);
      ASSERT_TRUE(v_scale == one.scale || (std::isnan(v_scale) && std::isnan(one.scale))) << one.name;
      ASSERT_TRUE(k_scale == one.scale || (std::isnan(k_scale) && std::isnan(one.scale))) << one.name;
      for (uint32_t dim = 0; dim < kDim; ++dim)
        ASSERT_EQ(kv.stored(Which::kV, 0, 0, 1, head, dim), dim < one.codes.size() ? one.codes[dim] : 0) << one.name;
    }
  }
}

}  // namespace
}  // namespace spillway
