#include "model/decoder.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "kernels/make_backend.h"
#include "tests/model/decoder_harness.h"
#include "tests/model/reference_forward.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

using Part = DecoderHarness::Part;
using Types = TinyModelOptions::Types;

class DecoderOnIsa : public testing::TestWithParam<std::string> {
 protected:
  DecoderHarness harness(const TinyModel& model, uint32_t threads = 1) {
    files_.push_back(std::make_unique<GgufFile>(model.open()));
    return DecoderHarness(*files_.back(), {.isa = GetParam(), .threads = threads});
  }

 private:
  std::vector<std::unique_ptr<GgufFile>> files_;
};
INSTANTIATE_TEST_SUITE_P(Isa, DecoderOnIsa, testing::ValuesIn(available_isa_levels()));

// Differences in units of the reference's standard deviation over all its logits.
struct Distance {
  double largest = 0, mean = 0;
};
template <class T>
Distance distance(const std::vector<std::vector<T>>& rows, const std::vector<std::vector<double>>& expected) {
  Distance distance;
  double count = 0, sum = 0, squares = 0;
  for (size_t row = 0; row < rows.size(); ++row)
    for (size_t i = 0; i < rows[row].size(); ++i, ++count) {
      const double difference = std::abs(rows[row][i] - expected[row][i]);
      distance.largest = std::max(distance.largest, difference);
      distance.mean += difference / static_cast<double>(rows.size() * rows[row].size());
      sum += expected[row][i];
      squares += expected[row][i] * expected[row][i];
    }
  const double deviation = std::sqrt(squares / count - sum / count * (sum / count));
  return {.largest = distance.largest / deviation, .mean = distance.mean / deviation};
}

// What rounding alone does to these logits is known from the reference itself: `rounding`. The product rounds at the
// same places and once more (p on AVX-512), but sums in another order, so a value near the middle of a step goes the
// other way. Were every rounding independent of the reference's, the two would differ by sqrt(2) * rounding; and from
// the plain reference the product differs as much as the rounded one does, and where it also rounds p by somewhat more:
// 2 * rounding at most. Twice sqrt(2) for the largest of thousands. A wrong angle, head, epsilon or scale is off by 0.1
// and more on average. The fixed numbers are guards besides, set after values once seen; the smaller limit holds.
// `allowance`: of the reference's rounding, how far the product may be from the rounded reference.
void expect_close(DecoderHarness decoder, const TinyModel& model, double allowance, uint32_t token_count) {
  const std::vector<TokenId> tokens = draw_tokens(11, token_count, TinyModel::kTinyVocab);
  ResidentGate gate;
  const Part part{.tokens = tokens, .slots = slots_from(0, 3), .all_logits = true};
  const auto rows = decoder.forward({&part, 1}, gate);
  ASSERT_EQ(rows.size(), tokens.size());
  const auto rounded_reference = reference_logits(model, tokens, ReferenceRounding::kBf16);
  const auto plain_reference = reference_logits(model, tokens, ReferenceRounding::kNone);
  const Distance rounding = distance(rounded_reference, plain_reference);
  const Distance rounded = distance(rows, rounded_reference), plain = distance(rows, plain_reference);
  SCOPED_TRACE(fmt::format(
      "{}, types {}, hidden {}, head_dim {}: rounding {:.5f} {:.4f}, to rounded {:.5f} {:.4f}, to "
      "plain {:.5f} {:.4f} (mean, largest)",
      model.options.architecture, static_cast<int>(model.options.types), model.options.hidden, model.options.head_dim,
      rounding.mean, rounding.largest, rounded.mean, rounded.largest, plain.mean, plain.largest));
  EXPECT_LT(rounding.mean, 0.05);  // else the limits would let a mistake through
  const double guard = allowance < 0.5 ? 1.0 : allowance < 1 ? 2.0 : 4.0;
  EXPECT_LT(rounded.mean, std::min(allowance * rounding.mean, 0.002 * guard));
  EXPECT_LT(rounded.largest, std::min(2 * allowance * rounding.largest, 0.03 * guard));
  EXPECT_LT(plain.mean, std::min(2 * rounding.mean, 0.02));
  EXPECT_LT(plain.largest, std::min(2 * std::sqrt(2.0) * rounding.largest, 0.35));
}

// Only AVX-512 rounds at one place more. Elsewhere nothing but sums in another order is left: a quarter finds a place
// that is rounded and should not be, or the other way round (rounding nowhere would be 1).
// Where quantised weights are not rounded there is less rounding in all, and what goes the other way weighs twice as
// much; weights rounded where they should not be, or the other way round, would still be 1.
double allowance_of(const std::string& isa, Types types) {
  if (isa == "avx512bf16") return std::sqrt(2.0);
  return types == Types::kF32 || types == Types::kBf16 ? 0.25 : 0.5;
}

TEST_P(DecoderOnIsa, LogitsAreThoseOfAPlainF64ForwardPass) {
  for (const Types types : {Types::kF32, Types::kBf16, Types::kQ8_0, Types::kQ4_1, Types::kMixed}) {
    for (const uint32_t head_dim : {16u, 32u}) {
      const TinyModel model =
          make_tiny_model({.seed = 7, .head_dim = head_dim, .types = types, .tied = types != Types::kBf16});
      expect_close(harness(model), model, allowance_of(GetParam(), types), 150);
    }
  }
  for (const Types types : {Types::kQ4_K_M, Types::kEvery}) {
    for (const bool tied : {true, false}) {
      const TinyModel model = make_tiny_model(
          {.seed = 13, .hidden = 256, .head_dim = 64, .feed_forward = 256, .types = types, .tied = tied});
      expect_close(harness(model), model, allowance_of(GetParam(), types), 50);
    }
  }
}

TEST_P(DecoderOnIsa, EveryArchitectureAndScalingIsItsPlainForwardPass) {
  for (const std::string architecture : {"qwen2", "qwen3"}) {
    for (const Types types : {Types::kQ4_1, Types::kMixed}) {
      const TinyModel model =
          make_tiny_model({.seed = 8, .architecture = architecture, .head_dim = 32, .types = types});
      expect_close(harness(model), model, allowance_of(GetParam(), types), 150);
    }
  }
  const TinyModel linear = make_tiny_model({.seed = 9, .rope_type = "linear", .rope_factor = 4});
  expect_close(harness(linear), linear, allowance_of(GetParam(), Types::kMixed), 150);
  const TinyModel divided = make_tiny_model({.seed = 10, .rope_divisors = {1, 1, 1.5, 3, 8, 8, 8, 8}});
  expect_close(harness(divided), divided, allowance_of(GetParam(), Types::kMixed), 150);
}

// Depths of products that are odd, or a multiple of neither 16 nor 64; heads of every width; groups of 1 to 8. In so
// few features one value that rounds the other way weighs up to half of the rounding, so all levels get the wide limit.
TEST_P(DecoderOnIsa, OddShapesAreRight) {
  struct Shape {
    uint32_t hidden, heads, kv_heads, head_dim, feed_forward;
  };
  for (const auto& [hidden, heads, kv_heads, head_dim, feed_forward] :
       {Shape{45, 3, 3, 48, 51}, Shape{31, 2, 1, 80, 17}, Shape{33, 4, 1, 96, 65}, Shape{70, 8, 1, 112, 127},
        Shape{63, 5, 1, 128, 3}, Shape{66, 2, 2, 256, 129}}) {
    for (const std::string architecture : {"llama", "qwen2", "qwen3"}) {
      const TinyModel model = make_tiny_model({.seed = 12,
                                               .architecture = architecture,
                                               .hidden = hidden,
                                               .heads = heads,
                                               .kv_heads = kv_heads,
                                               .head_dim = head_dim,
                                               .feed_forward = feed_forward,
                                               .types = Types::kBf16});
      expect_close(harness(model), model, std::sqrt(2.0), 70);
    }
  }
}

TEST_P(DecoderOnIsa, PruningTheLastLayerChangesNoBit) {
  const TinyModel model = make_tiny_model({.seed = 2});
  DecoderHarness decoder = harness(model);
  // Logit rows: neighbours across sequences, lone ones, a sequence without any.
  const std::vector<Part> parts{
      {.tokens = draw_tokens(1, 70, 300), .slots = {0, 1}},
      {.tokens = draw_tokens(2, 1, 300), .slots = {2}},
      {.tokens = draw_tokens(3, 5, 300), .slots = {3}, .all_logits = true},
      {.tokens = draw_tokens(4, 9, 300), .slots = {4}, .no_logits = true},
      {.tokens = draw_tokens(5, 64, 300), .slots = {5}},
  };
  ResidentGate gate;
  const auto all = decoder.forward(parts, gate, Decoder::LastLayer::kAllRows);
  const auto pruned = decoder.forward(parts, gate, Decoder::LastLayer::kLogitRows);
  ASSERT_EQ(all.size(), 8u);
  ASSERT_EQ(pruned.size(), all.size());
  for (size_t row = 0; row < all.size(); ++row) EXPECT_TRUE(same_bits(all[row], pruned[row])) << "row " << row;
}

TEST_P(DecoderOnIsa, PruningSkipsTheRowsThatNeedNoLogits) {
  const TinyModel model = make_tiny_model({.seed = 2});
  DecoderHarness decoder = harness(model);
  const Part part{.tokens = draw_tokens(1, 50, 300), .slots = {0}};
  ResidentGate gate;
  decoder.backend().reset_counters();
  (void)decoder.forward({&part, 1}, gate, Decoder::LastLayer::kAllRows);
  EXPECT_EQ(decoder.backend().counters().mlp_rows, 100u);
  decoder.backend().reset_counters();
  (void)decoder.forward({&part, 1}, gate, Decoder::LastLayer::kLogitRows);
  EXPECT_EQ(decoder.backend().counters().mlp_rows, 51u);
  EXPECT_EQ(decoder.backend().counters().kv_rows, 100u);
}

TEST_P(DecoderOnIsa, ChunksGiveTheBitsOfOnePass) {
  for (const std::string architecture : {"llama", "qwen2", "qwen3"}) {
    const TinyModel model = make_tiny_model({.seed = 3, .architecture = architecture});
    DecoderHarness decoder = harness(model);
    const std::vector<TokenId> tokens = draw_tokens(5, 300, 300);  // more than one attention split
    const std::vector<float> whole = decoder.last_logits(tokens, 300, slots_from(0, 5));
    uint32_t slot = 5;
    for (const uint32_t chunk : {1u, 17u, 64u, 128u}) {
      EXPECT_TRUE(same_bits(decoder.last_logits(tokens, chunk, slots_from(slot, 5)), whole))
          << architecture << ", chunks of " << chunk;
      slot += 5;
    }
  }
}

// Whichever vector or matrix of a layer holds it: a logit that is no number ends the request (SampleRow::finite).
TEST_P(DecoderOnIsa, NoWeightThatIsNotFiniteEndsInAFiniteRow) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  for (const std::string architecture : {"llama", "qwen2", "qwen3"}) {
    for (const TinyTensor& tensor : make_tiny_model({.architecture = architecture, .types = Types::kF32}).tensors) {
      for (const float poison : {std::numeric_limits<float>::quiet_NaN(), kInf, -kInf}) {
        const TinyModel model = make_tiny_model({.architecture = architecture,
                                                 .types = Types::kF32,
                                                 .poisoned = true,
                                                 .poisoned_tensor = tensor.name,
                                                 .poison = poison});
        DecoderHarness decoder = harness(model);
        const std::vector<float> logits = decoder.last_logits(draw_tokens(1, 20, 300), 20, {0});
        EXPECT_TRUE(std::ranges::any_of(logits, [](float logit) { return !std::isfinite(logit); }))
            << architecture << " " << tensor.name << " " << poison;
      }
    }
  }
}

TEST_P(DecoderOnIsa, SlotsMayLieInAnyOrder) {
  const TinyModel model = make_tiny_model({.seed = 4});
  DecoderHarness decoder = harness(model);
  const std::vector<TokenId> tokens = draw_tokens(6, 290, 300);
  const std::vector<float> ascending = decoder.last_logits(tokens, 64, {0, 1, 2, 3, 4});
  EXPECT_TRUE(same_bits(decoder.last_logits(tokens, 64, {40, 7, 63, 12, 9}), ascending));
}

TEST_P(DecoderOnIsa, NeighboursInTheBatchChangeNoBit) {
  const TinyModel model = make_tiny_model({.seed = 5});
  DecoderHarness decoder = harness(model);
  const std::vector<TokenId> tokens = draw_tokens(7, 100, 300);
  const std::vector<float> alone = decoder.last_logits(tokens, 100, {0, 1});
  ResidentGate gate;
  const std::vector<Part> parts{
      {.tokens = draw_tokens(8, 3, 300), .slots = {2}},
      {.tokens = draw_tokens(9, 130, 300), .slots = {3, 4, 5}},
      {.tokens = tokens, .slots = {6, 7}},
      {.tokens = draw_tokens(10, 64, 300), .slots = {8}},
  };
  const auto rows = decoder.forward(parts, gate);
  EXPECT_TRUE(same_bits(rows[2], alone));
  // A decode row beside a prefill chunk of somebody else.
  const std::vector<TokenId> first(tokens.begin(), tokens.end() - 1);
  (void)decoder.last_logits(first, 33, {9, 10});
  const std::vector<Part> mixed{
      {.tokens = {tokens.back()}, .position_first = 99, .slots = {9, 10}},
      {.tokens = draw_tokens(11, 200, 300), .slots = {11, 12, 13, 14}, .no_logits = true},
  };
  EXPECT_TRUE(same_bits(decoder.forward(mixed, gate).front(), alone));
}

TEST_P(DecoderOnIsa, ThreadsChangeNoBit) {
  const TinyModel model = make_tiny_model({.seed = 6});
  const std::vector<TokenId> tokens = draw_tokens(8, 270, 300);
  DecoderHarness one = harness(model, 1);
  const std::vector<float> expected = one.last_logits(tokens, 128, slots_from(0, 5));
  for (const uint32_t threads : {2u, 3u, 5u}) {
    DecoderHarness many = harness(model, threads);
    EXPECT_TRUE(same_bits(many.last_logits(tokens, 128, slots_from(0, 5)), expected)) << threads << " threads";
  }
}

TEST_P(DecoderOnIsa, PrefixBlocksOfAnotherSequenceServeAsItsOwn) {
  const TinyModel model = make_tiny_model({.seed = 9});
  DecoderHarness decoder = harness(model);
  const std::vector<TokenId> tokens = draw_tokens(12, 200, 300);
  const std::vector<float> expected = decoder.last_logits(tokens, 200, {0, 1, 2, 3});
  // Blocks 0 and 1 as computed above; the rest anew in other slots.
  ResidentGate gate;
  const Part rest{.tokens = {tokens.begin() + 128, tokens.end()}, .position_first = 128, .slots = {0, 1, 20, 21}};
  EXPECT_TRUE(same_bits(decoder.forward({&rest, 1}, gate).front(), expected));
}

class RecordingGate final : public LayerGate {
 public:
  void after_append(uint16_t layer) override { calls.push_back(layer); }
  [[nodiscard]] bool before_attention(uint16_t layer) override {
    calls.push_back(100 + layer);
    return layer != give_up_at;
  }
  std::vector<int> calls;
  int give_up_at = -1;
};

TEST_P(DecoderOnIsa, TheGateIsAskedOncePerLayerBetweenAppendAndAttention) {
  const TinyModel model = make_tiny_model({.seed = 1, .layers = 3});
  DecoderHarness decoder = harness(model);
  RecordingGate gate;
  const Part part{.tokens = {1, 2, 3}, .slots = {0}, .no_logits = true};
  EXPECT_TRUE(decoder.forward({&part, 1}, gate).empty());
  EXPECT_EQ(gate.calls, (std::vector<int>{0, 100, 1, 101, 2, 102}));
}

TEST_P(DecoderOnIsa, AStepAbandonedByTheGateCanBeRepeated) {
  const TinyModel model = make_tiny_model({.seed = 1});
  DecoderHarness decoder = harness(model);
  ResidentGate open;
  const std::vector<TokenId> tokens = draw_tokens(3, 90, 300);
  const Part part{.tokens = tokens, .slots = {0, 1}};
  const auto expected = decoder.forward({&part, 1}, open);
  const Part again{.tokens = tokens, .slots = {2, 3}};
  RecordingGate gate;
  gate.give_up_at = 1;
  EXPECT_TRUE(decoder.forward({&again, 1}, gate).empty());
  EXPECT_EQ(gate.calls.back(), 101);
  const auto repeated = decoder.forward({&again, 1}, open);
  EXPECT_TRUE(same_bits(repeated.front(), expected.front()));
}

}  // namespace
}  // namespace spillway
