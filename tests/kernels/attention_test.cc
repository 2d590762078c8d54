#include <limits>
#include <set>

#include "kernels/numerics.h"
#include "tests/kernels/paged_kv.h"

namespace spillway {
namespace {

using AttentionTest = KvTest;
SPILLWAY_FOR_EACH_ISA_AND_KV_DTYPE(AttentionTest);
std::vector<std::string> emulated_level_names() {
  std::vector<std::string> names;
  for (const cpu::IsaLevel& level : cpu::emulated_levels()) names.emplace_back(level.name);
  return names;
}
SPILLWAY_FOR_EACH_KV_DTYPE(Emulated, AttentionTest, emulated_level_names());
using Which = PagedKv::Which;

struct Shape {
  uint16_t heads, kv_heads, head_dim;
  uint16_t block_tokens = 64;
  KvLayout layout(KvDtype dtype) const { return {1, kv_heads, head_dim, block_tokens, dtype}; }
  size_t row() const { return size_t{heads} * head_dim; }
  float scale() const { return 1.0f / std::sqrt(static_cast<float>(head_dim)); }
};

// Runs `spans` over q and returns out.
std::vector<uint16_t> attend(Backend& backend, const Shape& shape, PagedKv& kv, std::vector<uint16_t>& q,
                             const std::vector<TokenSpan>& spans) {
  std::vector<uint16_t> out(q.size(), PagedKv::kNan);
  const auto rows = static_cast<uint32_t>(q.size() / shape.row());
  backend.attention({view(q, {rows, shape.heads, shape.head_dim}), kv.table(), kv.arena(), 0, spans, shape.scale(),
                     view(out, {rows, shape.heads, shape.head_dim})});
  return out;
}

struct Expected {
  std::vector<double> out;             // softmax(scale q.k) v in f64, for one row
  std::vector<double> limit;           // how far a correct body may be from it
  std::vector<std::vector<double>> p;  // by head and key
};

// The row at `position`. The limit follows from what a body rounds (docs/numerics.md): the
// output to bf16, half a step of 2^-7; where p is bf16, every key's p by an error that is even over half a step, so by
// 2^-8 / sqrt(3) of p at most as a deviation. l sums the same rounded p, so an error of p_j moves o by (v_j - o) of it;
// of int8 l sums p itself, so that it is v_j. Six deviations of the sum over the keys; 1e-5 for all that is f32.
enum class Rounds : uint8_t { kNothing, kP, kScaledP };
Expected reference(const Shape& shape, PagedKv& kv, uint32_t sequence, const uint16_t* q, uint32_t position,
                   Rounds rounds) {
  Expected expected{std::vector<double>(shape.row()), std::vector<double>(shape.row()), {}};
  for (uint32_t head = 0; head < shape.heads; ++head) {
    const uint32_t kv_head = head / (shape.heads / shape.kv_heads);
    std::vector<double> p(position + 1);
    for (uint32_t key = 0; key <= position; ++key) {
      for (uint32_t dim = 0; dim < shape.head_dim; ++dim) {
        p[key] += double{f32_from_bf16(q[head * shape.head_dim + dim])} * kv.k(sequence, key, 0, kv_head, dim) *
                  shape.scale();
      }
    }
    const double top = *std::max_element(p.begin(), p.end());
    for (double& value : p) value = std::exp(value - top);
    const double sum = std::accumulate(p.begin(), p.end(), 0.0);
    for (double& value : p) value /= sum;
    for (uint32_t dim = 0; dim < shape.head_dim; ++dim) {
      double& out = expected.out[head * shape.head_dim + dim];
      const auto value = [&](uint32_t key) { return kv.v(sequence, key, 0, kv_head, dim); };
      for (uint32_t key = 0; key <= position; ++key) out += p[key] * value(key);
      double variance = 0;
      const double centre = rounds == Rounds::kScaledP ? 0 : out;
      for (uint32_t key = 0; key <= position; ++key) variance += std::pow(p[key] * (value(key) - centre), 2);
      const double rounding = rounds == Rounds::kNothing ? 0 : 6 * 0x1p-8 / std::sqrt(3.0) * std::sqrt(variance);
      expected.limit[head * shape.head_dim + dim] = 0x1p-8 * std::abs(out) + rounding + 1e-5;
    }
    expected.p.push_back(std::move(p));
  }
  return expected;
}

// Moves the keys of one token towards the queries, so that it has a share in the result.
void attract(const Shape& shape, PagedKv& kv, uint32_t token, const std::vector<uint16_t>& q) {
  const uint32_t group = shape.heads / shape.kv_heads;
  for (uint32_t kv_head = 0; kv_head < shape.kv_heads; ++kv_head) {
    std::vector<float> row = kv.row(Which::kK, 0, token, 0, kv_head);
    for (uint32_t dim = 0; dim < shape.head_dim; ++dim)
      row[dim] += 1.5f * f32_from_bf16(q[kv_head * group * shape.head_dim + dim]);
    kv.set(Which::kK, 0, token, 0, kv_head, row);
  }
}

Rounds rounds_of(const Backend& backend) {
  if (backend.numerics() == kNumericsCpuAvx512Bf16Rev2) return Rounds::kP;
  return backend.numerics() == kNumericsCpuAvx512Bf16Rev2Kv8 ? Rounds::kScaledP : Rounds::kNothing;
}

TEST_P(AttentionTest, MatchesF64AtEveryEdgeAndWouldSeeALostKey) {
  const auto backend = make();
  const Shape shapes[] = {{3, 3, 64},  {9, 3, 64}, {8, 2, 64}, {8, 1, 64},     {4, 2, 32},
                          {4, 4, 128}, {6, 2, 80}, {4, 2, 8},  {4, 2, 64, 16}, {4, 2, 64, 128}};
  for (const Shape& shape : shapes) {
    for (const uint32_t position : {0u, 1u, 15u, 16u, 63u, 64u, 65u, 255u, 256u, 257u, 511u, 512u, 700u}) {
      SCOPED_TRACE(testing::Message() << shape.heads << "/" << shape.kv_heads << " x " << shape.head_dim << " at "
                                      << position);
      PagedKv kv(shape.layout(dtype()), {slots_from(0, position / shape.block_tokens + 1)});
      kv.fill(0, 0, position + 1, 0, 3);
      std::vector<uint16_t> q = Values(position + 17).bf16(shape.row());
      std::set<uint32_t> edges{0, 15, 16, 63, 64, 255, 256, position - (position > 0), position};
      edges.erase(edges.upper_bound(position), edges.end());
      for (const uint32_t key : edges) attract(shape, kv, key, q);
      const std::vector<uint16_t> out = attend(*backend, shape, kv, q, {{0, 1, position, 0}});
      const Expected expected = reference(shape, kv, 0, q.data(), position, rounds_of(*backend));
      for (size_t i = 0; i < out.size(); ++i)
        ASSERT_NEAR(f32_from_bf16(out[i]), expected.out[i], expected.limit[i]) << "element " << i;
      // A body that skips a key at an edge is further off than twice the limit somewhere, so it would fail above.
      for (const uint32_t lost : position > 0 ? edges : std::set<uint32_t>{}) {
        bool seen = false;
        for (size_t i = 0; i < out.size(); ++i) {
          const size_t head = i / shape.head_dim;
          const double p = expected.p[head][lost];
          const double v = kv.v(0, lost, 0, head / (shape.heads / shape.kv_heads), i % shape.head_dim);
          seen = seen || std::abs((expected.out[i] - p * v) / (1 - p) - expected.out[i]) > 2 * expected.limit[i];
        }
        EXPECT_TRUE(seen) << "key " << lost;
      }
    }
  }
}

TEST_P(AttentionTest, PrefillRowsMatchF64) {
  const auto backend = make(2);
  const Shape shape{9, 3, 64};
  PagedKv kv(shape.layout(dtype()), {slots_from(0, 5)});
  kv.fill(0, 0, 300, 0, 4);
  std::vector<uint16_t> q = Values(5).bf16(shape.row() * 300);
  const std::vector<uint16_t> out = attend(*backend, shape, kv, q, {{0, 300, 0, 0}});
  for (const uint32_t row : {0u, 1u, 15u, 16u, 17u, 63u, 64u, 130u, 255u, 256u, 299u}) {
    const Expected expected = reference(shape, kv, 0, &q[row * shape.row()], row, rounds_of(*backend));
    for (size_t i = 0; i < shape.row(); ++i)
      ASSERT_NEAR(f32_from_bf16(out[row * shape.row() + i]), expected.out[i], expected.limit[i]) << "row " << row;
  }
}

// The values a row may not see are NaN until their own chunk, and the rows of one pass see them written already.
TEST_P(AttentionTest, RowBitsDependNeitherOnChunksNorThreads) {
  const std::pair<Shape, uint32_t> cases[] = {
      {{9, 3, 64}, 530}, {{4, 4, 32}, 290}, {{8, 1, 80}, 290}, {{4, 2, 64, 16}, 290}};
  for (const auto& [shape, tokens] : cases) {
    std::vector<uint16_t> q = Values(8).bf16(shape.row() * tokens), expected;
    for (const auto& [threads, chunk] :
         {std::pair{1u, tokens}, {1u, 1u}, {1u, 64u}, {2u, 17u}, {2u, 100u}, {2u, tokens}}) {
      const auto backend = make(threads);
      PagedKv kv(shape.layout(dtype()), {slots_from(0, tokens / shape.block_tokens + 1)});
      std::vector<uint16_t> out;
      for (uint32_t first = 0; first < tokens; first += chunk) {
        const uint32_t end = std::min(first + chunk, tokens);
        kv.fill(0, first, end, 0, 9);
        std::vector<uint16_t> rows(q.begin() + first * shape.row(), q.begin() + end * shape.row());
        const std::vector<uint16_t> part = attend(*backend, shape, kv, rows, {{0, end - first, first, 0}});
        out.insert(out.end(), part.begin(), part.end());
      }
      if (expected.empty()) expected = out;
      ASSERT_TRUE(same_bits<uint16_t>(expected, out)) << "threads " << threads << " chunk " << chunk;
    }
  }
}

// Splits that threads share, against one thread that folds and merges them in order: decode and prefill rows; in the
// last two cases states of over 10 KB, so that the shared memory, 128 KiB a thread, is filled in several rounds: by one
// tile, and by a long tile between short ones.
TEST_P(AttentionTest, SplitsSharedAmongThreadsKeepTheBitsOfOneThread) {
  struct Rows {
    uint32_t count, end;  // rows of a sequence, and its length with them
  };
  struct Case {
    Shape shape;
    std::vector<Rows> sequences;
  };
  const Case cases[] = {{{9, 3, 64}, {{1, 257}}},     {{9, 3, 64}, {{1, 4000}}},
                        {{8, 1, 80}, {{17, 1300}}},   {{4, 4, 32}, {{1, 40}, {1, 3000}, {70, 600}, {1, 256}}},
                        {{4, 1, 256}, {{3, 10'000}}}, {{8, 2, 128}, {{1, 700}, {5, 9'000}, {1, 2000}}}};
  for (const Case& c : cases) {
    uint32_t rows = 0, blocks = 0, slot = 0;
    for (const Rows& sequence : c.sequences) blocks = std::max(blocks, sequence.end / c.shape.block_tokens + 1);
    std::vector<std::vector<uint32_t>> slots;
    std::vector<TokenSpan> spans;
    for (const Rows& sequence : c.sequences) {
      spans.push_back({rows, sequence.count, sequence.end - sequence.count, static_cast<uint32_t>(slots.size())});
      slots.push_back(slots_from(slot, blocks));
      rows += sequence.count;
      slot += blocks;
    }
    PagedKv kv(c.shape.layout(dtype()), slots);
    for (uint32_t s = 0; s < c.sequences.size(); ++s) kv.fill(s, 0, c.sequences[s].end, 0, 30 + s);
    std::vector<uint16_t> q = Values(31).bf16(c.shape.row() * rows);
    const std::vector<uint16_t> expected = attend(*make(1), c.shape, kv, q, spans);
    for (const uint32_t threads : {2u, 3u, 8u}) {
      const auto backend = make(threads);
      for (int repetition = 0; repetition < 3; ++repetition) {
        ASSERT_TRUE(same_bits<uint16_t>(expected, attend(*backend, c.shape, kv, q, spans)))
            << rows << " rows, " << threads << " threads";
      }
    }
  }
}

TEST_P(AttentionTest, RowBitsDependNeitherOnSlotsNorNeighbours) {
  const Shape shape{9, 3, 64};
  constexpr uint32_t kLengths[] = {1, 64, 65, 256, 257, 300, 700, 90};
  const auto backend = make(2);
  std::vector<uint16_t> q = Values(11).bf16(shape.row() * 8);
  // Eight sequences whose blocks lie shuffled among each other.
  std::vector<uint32_t> shuffled = slots_from(0, 8 * 11);
  std::shuffle(shuffled.begin(), shuffled.end(), std::mt19937(1));
  std::vector<std::vector<uint32_t>> slots;
  for (uint32_t s = 0; s < 8; ++s) slots.emplace_back(shuffled.begin() + s * 11, shuffled.begin() + (s + 1) * 11);
  PagedKv batch_kv(shape.layout(dtype()), slots);
  std::vector<TokenSpan> spans;
  for (uint32_t s = 0; s < 8; ++s) {
    batch_kv.fill(s, 0, kLengths[s], 0, 20 + s);
    spans.push_back({s, 1, kLengths[s] - 1, s});
  }
  const std::vector<uint16_t> batch = attend(*backend, shape, batch_kv, q, spans);
  for (uint32_t s = 0; s < 8; ++s) {
    PagedKv kv(shape.layout(dtype()), {slots_from(0, 11)});
    kv.fill(0, 0, kLengths[s], 0, 20 + s);
    std::vector<uint16_t> row(q.begin() + s * shape.row(), q.begin() + (s + 1) * shape.row());
    const std::vector<uint16_t> alone = attend(*backend, shape, kv, row, {{0, 1, kLengths[s] - 1, 0}});
    EXPECT_TRUE(same_bits<uint16_t>(alone, std::span(batch).subspan(s * shape.row(), shape.row()))) << s;
  }
}

TEST_P(AttentionTest, LaterTokensOfABlockAreNeverUsed) {  // the fixture leaves NaN there; here they are also zero
  const Shape shape{9, 3, 64};
  const auto backend = make();
  std::vector<uint16_t> q = Values(12).bf16(shape.row());
  for (const uint32_t position : {0u, 2u, 31u, 32u, 46u, 64u, 127u}) {
    PagedKv poisoned(shape.layout(dtype()), {slots_from(0, 2)}), clean(shape.layout(dtype()), {slots_from(0, 2)});
    std::memset(clean.arena().parts(SlotId{0}, {0, 1}).data(), 0, shape.layout(dtype()).block_bytes());
    std::memset(clean.arena().parts(SlotId{1}, {0, 1}).data(), 0, shape.layout(dtype()).block_bytes());
    poisoned.fill(0, 0, position + 1, 0, 13);
    clean.fill(0, 0, position + 1, 0, 13);
    const std::vector<uint16_t> a = attend(*backend, shape, poisoned, q, {{0, 1, position, 0}});
    const std::vector<uint16_t> b = attend(*backend, shape, clean, q, {{0, 1, position, 0}});
    EXPECT_TRUE(same_bits<uint16_t>(a, b)) << position;
    for (const uint16_t value : a) ASSERT_TRUE(std::isfinite(f32_from_bf16(value)));
  }
}

// What may be lost of a value of V whose p is 1: nothing of a bf16; of int8 as much as two roundings to bf16.
double loss(KvDtype dtype, double value) { return dtype == KvDtype::kInt8 ? 0x1.01p-8 * std::abs(value) : 0; }

TEST_P(AttentionTest, OneKeyReturnsItsValueExactly) {  // 2^0 must be 1 exactly
  const Shape shape{4, 2, 64};
  const auto backend = make();
  PagedKv kv(shape.layout(dtype()), {{0}});
  kv.fill(0, 0, 1, 0, 14);
  std::vector<uint16_t> q = Values(15).bf16(shape.row());
  const std::vector<uint16_t> out = attend(*backend, shape, kv, q, {{0, 1, 0, 0}});
  for (uint32_t head = 0; head < 4; ++head) {
    for (uint32_t dim = 0; dim < 64; ++dim) {
      const double v = kv.v(0, 0, 0, head / 2, dim);
      ASSERT_NEAR(f32_from_bf16(out[head * 64 + dim]), v, loss(dtype(), v));
    }
  }
}

TEST_P(AttentionTest, HugeScoresNeitherOverflowNorVanish) {
  const Shape shape{1, 1, 64};
  const auto backend = make();
  PagedKv kv(shape.layout(dtype()), {slots_from(0, 6)});
  kv.fill(0, 0, 330, 0, 16);
  for (uint32_t key = 0; key < 330; ++key) {
    std::vector<float> row = kv.row(Which::kK, 0, key, 0, 0);
    row[0] = key == 100 ? 3000.0f : -3000.0f;
    kv.set(Which::kK, 0, key, 0, 0, row);
  }
  std::vector<uint16_t> q(64);
  q[0] = bf16_from_f32(3000.0f);
  const std::vector<uint16_t> out = attend(*backend, shape, kv, q, {{0, 1, 329, 0}});
  for (uint32_t dim = 0; dim < 64; ++dim) {
    const double v = kv.v(0, 100, 0, 0, dim);
    ASSERT_NEAR(f32_from_bf16(out[dim]), v, loss(dtype(), v));
  }
}

TEST_P(AttentionTest, NanInASeenKeyIsNotHidden) {
  const Shape shape{2, 1, 64};
  const auto backend = make();
  PagedKv kv(shape.layout(dtype()), {slots_from(0, 6)});
  std::vector<float> row(64, 1.0f);
  row[5] = std::numeric_limits<float>::quiet_NaN();
  std::vector<uint16_t> q = Values(19).bf16(shape.row());
  for (const Which which : {Which::kK, Which::kV}) {
    kv.fill(0, 0, 330, 0, 18);
    kv.set(which, 0, 40, 0, 0, row);
    const std::vector<uint16_t> out = attend(*backend, shape, kv, q, {{0, 1, 329, 0}});
    for (size_t i = 0; i < out.size(); ++i)  // of a bf16 V only its own dim is NaN
      ASSERT_EQ(std::isnan(f32_from_bf16(out[i])), which == Which::kK || dtype() == KvDtype::kInt8 || i % 64 == 5);
  }
}

TEST_P(AttentionTest, RowsOfZeroScaleCountAsZeros) {
  const Shape shape{2, 1, 64};
  const auto backend = make();
  PagedKv kv(shape.layout(dtype()), {slots_from(0, 2)});
  for (uint32_t key = 0; key < 70; ++key)
    for (const Which which : {Which::kK, Which::kV}) kv.set(which, 0, key, 0, 0, std::vector<float>(64));
  kv.set(Which::kV, 0, 69, 0, 0, std::vector<float>(64, 70.0f));
  std::vector<uint16_t> q = Values(23).bf16(shape.row());
  for (const uint16_t value : attend(*backend, shape, kv, q, {{0, 1, 69, 0}}))
    ASSERT_NEAR(f32_from_bf16(value), 1.0, 0x1p-7);  // every key has the same weight
}

}  // namespace
}  // namespace spillway
