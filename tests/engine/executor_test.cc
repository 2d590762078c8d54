#include "engine/executor.h"

#include <gtest/gtest.h>

#include <memory>
#include <variant>
#include <vector>

#include "common/check.h"
#include "engine/kv_memory.h"
#include "kernels/make_backend.h"
#include "model/weights.h"
#include "tests/support/tiny_model.h"

namespace spillway {
namespace {

// An Executor over a tiny model, with the test as its loop.
class ExecutorTest : public testing::Test {
 protected:
  void start(const TinyModelOptions& options) {
    file_ = std::make_unique<GgufFile>(make_tiny_model(options).open());
    config_ = *read_model_config(*file_);
    backend_ = make_backend({.isa = "scalar", .threads = 1});
    weights_ = *load_weights(*file_, config_, *backend_);
    memory_ = std::make_unique<KvMemory>(*backend_, config_.kv_layout(), 16 * config_.kv_layout().block_bytes());
    decoder_ = std::make_unique<Decoder>(*backend_, config_, weights_, 128, 4, 512);
    executor_ = std::make_unique<Executor>(
        *backend_, *decoder_, memory_->arena(),
        Executor::Limits{.tokens_max = 128, .sequences_max = 4, .blocks_per_sequence_max = 8}, events_);
  }
  ComputeEvent next_event() {
    for (;;) {
      if (std::optional<ComputeEvent> event = events_.take()) return std::move(*event);
      waker_.wait(-1);
      waker_.drain();
    }
  }
  StepDone run(StepPlan plan) {
    executor_->submit(std::move(plan));
    for (;;) {
      ComputeEvent event = next_event();
      if (auto* done = std::get_if<StepDone>(&event)) return std::move(*done);
    }
  }
  static StepShare share(SequenceId sequence, uint32_t token_first, uint32_t token_count, uint32_t position_first,
                         uint32_t block_first, uint32_t block_count) {
    StepShare share{.sequence = sequence,
                    .token_first = token_first,
                    .token_count = token_count,
                    .position_first = position_first,
                    .block_first = block_first,
                    .block_count = block_count,
                    .samples = true,
                    .sample = {}};
    share.sample.digest = true;
    return share;
  }

  EventFdWaker waker_;
  Mailbox<ComputeEvent> events_{8, waker_};
  std::unique_ptr<GgufFile> file_;
  ModelConfig config_;
  std::unique_ptr<Backend> backend_;
  Weights weights_;
  std::unique_ptr<KvMemory> memory_;
  std::unique_ptr<Decoder> decoder_;
  std::unique_ptr<Executor> executor_;
};

std::vector<TokenId> tokens(uint32_t first, uint32_t count) {
  std::vector<TokenId> tokens(count);
  for (uint32_t i = 0; i < count; ++i) tokens[i] = (first + 7 * i) % TinyModel::kTinyVocab;
  return tokens;
}

TEST_F(ExecutorTest, EveryLayerIsAnnouncedInOrderBeforeTheStepIsDone) {
  start({.layers = 3});
  StepPlan plan{.step = StepId{9},
                .tokens = tokens(1, 70),
                .blocks = {SlotId{3}, SlotId{1}},
                .shares = {share(SequenceId{5}, 0, 70, 0, 0, 2)},
                .announce_layers = true};
  executor_->submit(plan);
  for (uint16_t layer = 0; layer < 3; ++layer) {
    const ComputeEvent event = next_event();
    const auto* announced = std::get_if<LayerDone>(&event);
    ASSERT_NE(announced, nullptr);
    EXPECT_EQ(announced->step, StepId{9});
    EXPECT_EQ(announced->layer, layer);
  }
  const ComputeEvent event = next_event();
  const auto* done = std::get_if<StepDone>(&event);
  ASSERT_NE(done, nullptr);
  EXPECT_EQ(done->step, StepId{9});
  EXPECT_GT(done->elapsed.count(), 0);
  ASSERT_EQ(done->sampled.size(), 1u);
  EXPECT_EQ(done->sampled[0].sequence, SequenceId{5});
  EXPECT_TRUE(done->sampled[0].finite);
}

TEST_F(ExecutorTest, AStepThatAnnouncesNothingAnswersOnce) {
  start({});
  StepPlan plan{.step = StepId{1},
                .tokens = tokens(1, 3),
                .blocks = {SlotId{0}},
                .shares = {share(SequenceId{0}, 0, 3, 0, 0, 1)}};
  executor_->submit(plan);
  EXPECT_TRUE(std::holds_alternative<StepDone>(next_event()));
  EXPECT_FALSE(events_.take());
}

TEST_F(ExecutorTest, SharesOfOneStepAnswerAsEachAlone) {
  start({});
  const std::vector<TokenId> a = tokens(2, 65), b = tokens(90, 10);
  StepPlan alone_a{.step = StepId{1},
                   .tokens = a,
                   .blocks = {SlotId{0}, SlotId{1}},
                   .shares = {share(SequenceId{0}, 0, 65, 0, 0, 2)}};
  StepPlan alone_b{
      .step = StepId{2}, .tokens = b, .blocks = {SlotId{2}}, .shares = {share(SequenceId{1}, 0, 10, 0, 0, 1)}};
  const SampledToken expected_a = run(alone_a).sampled.front(), expected_b = run(alone_b).sampled.front();

  StepPlan both{.step = StepId{3},
                .tokens = b,
                .blocks = {SlotId{7}, SlotId{5}, SlotId{6}},
                .shares = {share(SequenceId{1}, 0, 10, 0, 0, 1), share(SequenceId{0}, 10, 65, 0, 1, 2)}};
  both.tokens.insert(both.tokens.end(), a.begin(), a.end());
  const StepDone done = run(both);
  ASSERT_EQ(done.sampled.size(), 2u);
  EXPECT_EQ(done.sampled[0].logits_digest, expected_b.logits_digest);
  EXPECT_EQ(done.sampled[0].token, expected_b.token);
  EXPECT_EQ(done.sampled[1].logits_digest, expected_a.logits_digest);
  EXPECT_EQ(done.sampled[1].token, expected_a.token);
}

TEST_F(ExecutorTest, ADecodeRowContinuesWhatAnEarlierStepLeftInTheSlots) {
  start({});
  const std::vector<TokenId> all = tokens(4, 80);
  StepPlan whole{.step = StepId{1},
                 .tokens = all,
                 .blocks = {SlotId{0}, SlotId{1}},
                 .shares = {share(SequenceId{0}, 0, 80, 0, 0, 2)}};
  const SampledToken expected = run(whole).sampled.front();

  StepPlan first{.step = StepId{2},
                 .tokens = {all.begin(), all.end() - 1},
                 .blocks = {SlotId{4}, SlotId{9}},
                 .shares = {share(SequenceId{0}, 0, 79, 0, 0, 2)}};
  first.shares.front().samples = false;
  EXPECT_TRUE(run(first).sampled.empty());
  StepPlan last{.step = StepId{3},
                .tokens = {all.back()},
                .blocks = {SlotId{4}, SlotId{9}},
                .shares = {share(SequenceId{0}, 0, 1, 79, 0, 2)}};
  EXPECT_EQ(run(last).sampled.front().logits_digest, expected.logits_digest);
}

TEST_F(ExecutorTest, EachRowIsSampledWithItsOwnHistory) {
  start({});
  const std::vector<TokenId> prompt = tokens(3, 20);
  StepPlan plan{
      .step = StepId{1}, .tokens = prompt, .blocks = {SlotId{0}}, .shares = {share(SequenceId{0}, 0, 20, 0, 0, 1)}};
  const TokenId greedy = run(plan).sampled.front().token;

  // Twice the same rows; the first history names another token, the second the greedy one.
  StepShare other = share(SequenceId{1}, 0, 20, 0, 0, 1), repeats = share(SequenceId{2}, 20, 20, 0, 1, 1);
  for (StepShare* const one : {&other, &repeats}) {
    one->sample.params.frequency_penalty = 2;
    one->sample.position = 20;
  }
  repeats.history_first = 20;
  StepPlan both{.step = StepId{2}, .tokens = prompt, .blocks = {SlotId{0}, SlotId{1}}, .shares = {other, repeats}};
  both.tokens.insert(both.tokens.end(), prompt.begin(), prompt.end());
  both.history.assign(20, (greedy + 1) % TinyModel::kTinyVocab);
  both.history.insert(both.history.end(), 20, greedy);
  const StepDone done = run(both);
  EXPECT_EQ(done.sampled.at(0).token, greedy);
  EXPECT_NE(done.sampled.at(1).token, greedy);
  EXPECT_EQ(done.sampled.at(0).logits_digest, done.sampled.at(1).logits_digest);
}

// Two shares of one step; more rows reach the classifier than it takes at once.
TEST_F(ExecutorTest, ScoredTokensAreAsProbableAsTheirPrefixesSay) {
  start({});
  const std::vector<TokenId> prompt = tokens(5, 90);
  StepShare scored = share(SequenceId{0}, 0, 90, 0, 0, 2), cut = share(SequenceId{1}, 90, 38, 0, 2, 1);
  for (StepShare* const one : {&scored, &cut}) one->logprob_count = 4;
  scored.score_count = 89;
  scored.sample.logprob_count = 4;
  cut.score_count = 38;
  cut.after = prompt[38];
  cut.samples = false;
  StepPlan plan{
      .step = StepId{1}, .tokens = prompt, .blocks = {SlotId{0}, SlotId{1}, SlotId{2}}, .shares = {scored, cut}};
  plan.tokens.insert(plan.tokens.end(), prompt.begin(), prompt.begin() + 38);
  const StepDone done = run(plan);
  ASSERT_EQ(done.scored.size(), 2u);
  ASSERT_EQ(done.sampled.size(), 1u);
  EXPECT_EQ(done.sampled[0].logprobs.size(), 4u);
  EXPECT_EQ(done.scored[0].position_first, 1u);
  ASSERT_EQ(done.scored[0].logprobs.size(), 89u * 4);
  ASSERT_EQ(done.scored[1].logprobs.size(), 38u * 4);
  EXPECT_TRUE(
      std::equal(done.scored[1].logprobs.begin(), done.scored[1].logprobs.end(), done.scored[0].logprobs.begin()));
  for (const uint32_t length : {1u, 40u, 89u}) {
    StepShare prefix = share(SequenceId{2}, 0, length, 0, 0, 2);
    prefix.sample.logprob_count = 4;
    StepPlan alone{.step = StepId{length + 1},
                   .tokens = {prompt.begin(), prompt.begin() + length},
                   .blocks = {SlotId{4}, SlotId{5}},
                   .shares = {prefix}};
    const std::vector<TokenLogprob> expected = run(alone).sampled.at(0).logprobs;
    const TokenLogprob* const told = &done.scored[0].logprobs[(length - 1) * 4];
    EXPECT_EQ(told[0].token, prompt[length]);
    for (size_t index = 1; index < 4; ++index) EXPECT_EQ(told[index], expected[index]) << length;
  }
}

TEST_F(ExecutorTest, LogitsThatAreNotFiniteAreReported) {
  start({.poisoned = true});
  StepPlan plan{.step = StepId{1},
                .tokens = tokens(1, 3),
                .blocks = {SlotId{0}},
                .shares = {share(SequenceId{0}, 0, 3, 0, 0, 1)}};
  const StepDone done = run(plan);
  ASSERT_EQ(done.sampled.size(), 1u);
  EXPECT_FALSE(done.sampled[0].finite);
}

TEST_F(ExecutorTest, APoisonedShareIsNotFiniteAndItsNeighbourIsAsWithoutIt) {
  start({});
  StepPlan plan{.step = StepId{1},
                .tokens = tokens(1, 6),
                .blocks = {SlotId{0}, SlotId{1}},
                .shares = {share(SequenceId{0}, 0, 3, 0, 0, 1), share(SequenceId{1}, 3, 3, 0, 1, 1)}};
  for (StepShare& one : plan.shares) one.sample.digest = true;
  const StepDone healthy = run(plan);
  first_sampled(plan)->poisoned = true;
  const StepDone done = run(plan);
  EXPECT_FALSE(done.sampled.at(0).finite);
  EXPECT_TRUE(done.sampled.at(1).finite);
  EXPECT_EQ(done.sampled.at(1).token, healthy.sampled.at(1).token);
  EXPECT_EQ(done.sampled.at(1).logits_digest, healthy.sampled.at(1).logits_digest);
}

TEST_F(ExecutorTest, DestructionFinishesTheStepInFlight) {
  start({});
  StepPlan plan{.step = StepId{4},
                .tokens = tokens(1, 100),
                .blocks = {SlotId{0}, SlotId{1}},
                .shares = {share(SequenceId{0}, 0, 100, 0, 0, 2)}};
  executor_->submit(plan);
  executor_.reset();
  const std::optional<ComputeEvent> event = events_.take();
  ASSERT_TRUE(event && std::holds_alternative<StepDone>(*event));
}

TEST(KvMemory, ABudgetBelowOneBlockCannotStart) {
  const auto backend = make_backend({.isa = "scalar", .threads = 1});
  const KvLayout layout{.layer_count = 2, .kv_heads = 2, .head_dim = 16};
  try {
    const KvMemory memory(*backend, layout, layout.block_bytes() - 1);
    FAIL() << "a pool without a slot";
  } catch (const SetupError& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find(std::to_string(layout.block_bytes())), std::string::npos) << what;
    EXPECT_NE(what.find("--device-memory"), std::string::npos) << what;
  }
}

TEST(KvMemory, HoldsAsManyWholeBlocksAsTheBudget) {
  const auto backend = make_backend({.isa = "scalar", .threads = 1});
  const KvLayout layout{.layer_count = 2, .kv_heads = 2, .head_dim = 16};
  const KvMemory memory(*backend, layout, 5 * layout.block_bytes() + layout.block_bytes() / 2);
  EXPECT_EQ(memory.arena().slot_count, 5u);
  EXPECT_EQ(memory.arena().parts(SlotId{4}, {1, 1}).size(), layout.part_bytes());
}

}  // namespace
}  // namespace spillway
