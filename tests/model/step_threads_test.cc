#include "model/step_threads.h"

#include <gtest/gtest.h>

#include <set>

#include "kernels/make_backend.h"
#include "model/measure_step_threads.h"
#include "model/weights.h"
#include "tests/model/decoder_harness.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

constexpr Duration kMs = std::chrono::milliseconds(1);

TEST(StepThreads, AreThoseOfTheNearestRows) {
  const StepThreads threads({{1, 2, {}}, {8, 3, {}}, {64, 7, {}}});
  for (const auto& [rows, expected] :
       {std::pair{1u, 2u}, {2u, 2u}, {3u, 3u}, {8u, 3u}, {22u, 3u}, {23u, 7u}, {64u, 7u}, {100'000u, 7u}})
    EXPECT_EQ(threads.of(rows), expected) << rows;
  EXPECT_EQ(StepThreads(5).of(1), 5u);
  EXPECT_EQ(StepThreads(5).of(4000), 5u);
}

TEST(StepThreads, OfNearlyEqualOnesTheFewestWin) {
  EXPECT_EQ(fewest_good_threads({{1, 10 * kMs}}), 1u);
  EXPECT_EQ(fewest_good_threads({{2, 10 * kMs}, {1, 20 * kMs}}), 2u);
  EXPECT_EQ(fewest_good_threads({{4, 100 * kMs}, {2, 104 * kMs}, {1, 106 * kMs}}), 2u);
  EXPECT_EQ(fewest_good_threads({{4, 30 * kMs}, {2, 20 * kMs}, {1, 10 * kMs}}), 1u);
}

TEST(StepThreads, OfNearlyEqualOnesTheMostComputeManyRows) {
  EXPECT_EQ(most_good_threads({{1, 10 * kMs}}), 1u);
  EXPECT_EQ(most_good_threads({{4, 109 * kMs}, {2, 104 * kMs}, {1, 100 * kMs}}), 4u);
  EXPECT_EQ(most_good_threads({{4, 111 * kMs}, {2, 104 * kMs}, {1, 100 * kMs}}), 2u);
}

TEST(StepThreads, SayWhatWasMeasured) {
  const StepThreads threads({{1, 1, {{2, 3 * kMs}, {1, 2 * kMs}}}, {64, 2, {{2, 30 * kMs}, {1, 55 * kMs}}}});
  EXPECT_EQ(threads.text(), "1 row: 1 thread (2 ms a layer; 2: 3); 64 rows: 2 threads (30 ms a layer; 1: 55)");
  EXPECT_EQ(StepThreads(2).text(), "2 threads");
}

TEST(StepThreads, EveryNumberUpToAFewAndThenByHalves) {
  EXPECT_EQ(thread_counts(1), (std::vector<uint32_t>{1}));
  EXPECT_EQ(thread_counts(2), (std::vector<uint32_t>{2, 1}));
  EXPECT_EQ(thread_counts(5), (std::vector<uint32_t>{5, 4, 3, 2, 1}));
  EXPECT_EQ(thread_counts(16), (std::vector<uint32_t>{16, 12, 8, 6, 4, 3, 2, 1}));
  EXPECT_EQ(thread_counts(256).size(), 16u);
}

struct Model {
  static constexpr uint32_t kSlots = 8;
  explicit Model(uint32_t threads, uint32_t rows_max = 128, uint32_t positions_max = 1024)
      : file(tiny.open()),
        backend(make_backend({.isa = "scalar", .threads = threads})),
        config(read_model_config(file).value()),
        weights(load_weights(file, config, *backend).value()),
        decoder(*backend, config, weights, rows_max, 1, positions_max) {
    const KvLayout layout = config.kv_layout();
    kv = {.base = backend->allocate(kSlots * layout.block_bytes()).data(),
          .header_bytes = 0,
          .layout = layout,
          .slot_count = kSlots};
  }
  const TinyModel tiny = make_tiny_model({});
  const GgufFile file;
  const std::unique_ptr<Backend> backend;
  const ModelConfig config;
  const Weights weights;
  Decoder decoder;
  SlotArena kv;
};

TEST(MeasureStepThreads, TriesEachNumberForEachKindOfStep) {
  Model model(3);
  const StepThreads measured = measure_step_threads(*model.backend, model.decoder, model.kv);
  const bool slow = measured.phases().back().tried.size() == 1;  // then no kind of more rows is tried
  ASSERT_TRUE(measured.phases().size() == 3 || slow) << measured.text();
  uint32_t rows = 1;
  for (const StepThreads::Phase& phase : measured.phases()) {
    EXPECT_EQ(phase.rows, rows);
    rows *= 8;
    std::set<uint32_t> tried;
    for (const StepThreads::Tried& one : phase.tried) {
      EXPECT_GT(one.layer, Duration::zero());
      tried.insert(one.threads);
    }
    EXPECT_TRUE(tried.contains(3)) << measured.text();
    EXPECT_TRUE(tried.contains(2) || phase.tried.front().layer > 25 * kMs) << measured.text();
    EXPECT_TRUE(tried.contains(phase.threads)) << measured.text();
    EXPECT_EQ(phase.threads, phase.rows < 64 ? fewest_good_threads(phase.tried) : most_good_threads(phase.tried));
  }
  EXPECT_EQ(model.decoder.step_threads().of(1), 3u) << "left as it was";
}

TEST(MeasureStepThreads, WhatIsTooSmallForAKindOfStepGoesWithout) {
  Model narrow(2, 5), brief(2, 128, 64);
  EXPECT_EQ(measure_step_threads(*narrow.backend, narrow.decoder, narrow.kv).phases().size(), 1u);
  const StepThreads of_brief = measure_step_threads(*brief.backend, brief.decoder, brief.kv);
  EXPECT_TRUE(of_brief.phases().size() == 3 || of_brief.phases().back().tried.size() == 1) << of_brief.text();
  brief.kv.slot_count = 7;  // the kind of 8 sequences: each needs a block
  EXPECT_LE(measure_step_threads(*brief.backend, brief.decoder, brief.kv).phases().size(), 2u);
  Model alone(1);
  EXPECT_EQ(measure_step_threads(*alone.backend, alone.decoder, alone.kv).text(), "1 thread");
}

// A backend that tells how many threads are in use by the time that an operation takes would need a clock of its own:
// the bits are what counts.
TEST(StepThreads, ChangeNoBitOfALogit) {
  const std::vector<TokenId> prompt = draw_tokens(3, 40, 64);
  std::vector<std::vector<float>> found;
  for (const uint32_t threads : {1u, 2u, 4u}) {
    Model model(4);
    model.decoder.use_step_threads(StepThreads({{1, 5 - threads, {}}, {8, threads, {}}}));
    std::vector<float> all;
    ResidentGate gate;
    uint32_t slot = 0;
    for (uint32_t at = 0, count = 33; at < prompt.size(); at += count, count = 1) {
      const TokenSpan span{.row_first = 0, .row_count = count, .position_first = at, .block_table_row = 0};
      const uint32_t last = count - 1;
      const TensorView table{.data = reinterpret_cast<std::byte*>(&slot), .type = DataType::kU32, .shape = {1, 1, 1}};
      const auto logits = model.decoder.forward(
          {.tokens = {prompt.data() + at, count}, .spans = {&span, 1}, .block_table = table, .logit_rows = {&last, 1}},
          model.kv, gate);
      all.insert(all.end(), logits->as<float>(), logits->as<float>() + model.config.vocab);
    }
    found.push_back(all);
  }
  EXPECT_TRUE(same_bits(found[0], found[1]));
  EXPECT_TRUE(same_bits(found[0], found[2]));
}

}  // namespace
}  // namespace spillway
