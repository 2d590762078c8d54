#include "engine/engine.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "tests/engine/fake_server.h"

namespace spillway {
namespace {

std::vector<SlotId> slots_of(const Sequence& sequence) {
  std::vector<SlotId> slots;
  for (const SlotPin& pin : sequence.blocks) slots.push_back(pin.slot());
  return slots;
}

class PromptSizes : public testing::TestWithParam<uint32_t> {};

TEST_P(PromptSizes, ComputeEachRowOnceInChunksAndGenerateWhatOnePassDoes) {
  Server server(64);
  const auto prompt = prompt_of(GetParam());
  const SequenceId sequence = server.start(prompt, 70);
  uint32_t position = 0;
  while (server.engine.queued_prompt_tokens() > 0) {
    const StepPlan plan = server.engine.plan().value();
    ASSERT_EQ(plan.shares.size(), 1u);
    EXPECT_EQ(plan.shares[0].position_first, position);
    EXPECT_EQ(plan.shares[0].token_count, std::min(kChunkTokens, GetParam() - position));
    position += plan.shares[0].token_count;
    EXPECT_EQ(plan.shares[0].block_count, (position + kBlockTokens - 1) / kBlockTokens);
    EXPECT_EQ(plan.shares[0].samples, position == GetParam());
    EXPECT_TRUE(plan.announce_layers);
    std::vector<EngineToken> tokens;
    server.engine.on(server.executor.run(plan), tokens);
    EXPECT_EQ(tokens.size(), position == GetParam() ? 1u : 0u);
  }
  auto generated = std::vector{server.engine.sequence(sequence).tokens.back()};
  for (auto tokens = server.step(); !tokens.empty(); tokens = server.step()) generated.push_back(tokens[0].token);
  EXPECT_EQ(generated, fake_reference(prompt, 70, 0));
}
INSTANTIATE_TEST_SUITE_P(Boundaries, PromptSizes, testing::Values(1, 63, 64, 65, 127, 128, 129, 1000));

TEST(EngineOpen, WrongRequestsAreRefusedWithTheirReason) {
  Server server(8, 4, 600);
  EXPECT_EQ(server.open({}, 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(server.open({1, kFakeVocab, 2}, 1).error().code, ErrorCode::kInvalidArgument);
  EXPECT_EQ(server.open(prompt_of(601), 1).error().code, ErrorCode::kTooLong);
  EXPECT_EQ(server.open(prompt_of(513), 1).error().code, ErrorCode::kTooLong);  // nine blocks, the pool has eight
  EXPECT_TRUE(server.open(prompt_of(512), 1).has_value());
  EXPECT_EQ(server.engine.open_sequences(), 1u);
}

TEST(EngineSetup, LimitsThatCannotWorkStopTheStart) {
  KvCache cache({.layout = {}, .model = {}, .encoding = {}, .slot_count = 1});
  const auto make = [&](BatchLimits limits, uint32_t len) { Engine({.limits = limits, .max_model_len = len}, cache); };
  EXPECT_NO_THROW(make({.tokens_max = 4, .chunk_tokens = 1, .sequences_max = 4}, 1));
  EXPECT_THROW(make({.tokens_max = 3, .chunk_tokens = 1, .sequences_max = 4}, 1), SetupError);
  EXPECT_THROW(make({.tokens_max = 4, .chunk_tokens = 0, .sequences_max = 4}, 1), SetupError);
  EXPECT_THROW(make({.tokens_max = 4, .chunk_tokens = 1, .sequences_max = 0}, 1), SetupError);
  EXPECT_THROW(make({.tokens_max = 4, .chunk_tokens = 1, .sequences_max = 4}, 0), SetupError);
  EXPECT_THROW(make({.tokens_max = 4, .chunk_tokens = 1, .sequences_max = 4}, 0xffffffffu), SetupError);
}

TEST(Engine, StopsWhenItsReserveIsUsedUp) {
  Server server(64);
  const auto prompt = prompt_of(100);
  for (const uint32_t output : {1u, 2u, 65u}) {
    const SequenceId sequence = server.start(prompt, output);
    EXPECT_EQ(server.run(sequence), fake_reference(prompt, output, 0)) << output;
    EXPECT_EQ(server.engine.sequence(sequence).computed_tokens, 100 + output - 1);
    EXPECT_FALSE(server.engine.plan().has_value());
    server.engine.close(sequence);
  }
}

TEST(Engine, SecondTurnComputesOnlyWhatIsNew) {
  Server server(64);
  auto prompt = prompt_of(200);
  const SequenceId first = server.start(prompt, 100);
  const auto generated = server.run(first);
  server.engine.close(first);
  // 299 positions were computed: 4 full blocks, the last one generated.
  prompt.insert(prompt.end(), generated.begin(), generated.end());
  const SequenceId second = server.start(prompt, 10);
  EXPECT_EQ(server.engine.sequence(second).cached_tokens, 256u);
  const StepPlan plan = server.engine.plan().value();
  EXPECT_EQ(plan.shares[0].position_first, 256u);
  EXPECT_EQ(plan.tokens.size(), 300u - 256u);
  std::vector<EngineToken> tokens;
  server.engine.on(server.executor.run(plan), tokens);
  auto again = std::vector{tokens[0].token};
  for (auto more = server.step(); !more.empty(); more = server.step()) again.push_back(more[0].token);
  EXPECT_EQ(again, fake_reference(prompt, 10, 0));
}

TEST(Engine, WholePromptInCacheStillComputesItsLastBlock) {
  Server server(64);
  const auto prompt = prompt_of(128);
  const SequenceId first = server.start(prompt, 1);
  server.run(first);
  server.engine.close(first);
  const SequenceId second = server.start(prompt, 5);
  EXPECT_EQ(server.engine.sequence(second).cached_tokens, 64u);
  EXPECT_EQ(server.run(second), fake_reference(prompt, 5, 0));
}

TEST(Engine, SequencesWithOnePrefixShareItsSlotsAndNothingElse) {
  Server server(64);
  auto left = prompt_of(200), right = prompt_of(200);
  right[150] += 1;
  const SequenceId a = server.start(left, 20);
  server.step();
  server.step();
  const SequenceId b = server.start(right, 20, 3);
  const auto slots_a = slots_of(server.engine.sequence(a)), slots_b = slots_of(server.engine.sequence(b));
  for (size_t block = 0; block < 2; ++block) EXPECT_EQ(slots_a[block], slots_b[block]);
  for (size_t block = 2; block < slots_b.size(); ++block) {
    EXPECT_EQ(std::ranges::count(slots_a, slots_b[block]), 0);
  }
  EXPECT_EQ(server.run(b), fake_reference(right, 20, 3));
  EXPECT_EQ(server.engine.sequence(a).tokens.size(), 220u);
  const auto generated = std::span(server.engine.sequence(a).tokens).subspan(200);
  EXPECT_TRUE(std::ranges::equal(generated, fake_reference(left, 20, 0)));
}

TEST(Engine, OtherTenantNeverHits) {
  Server server(16);
  const auto prompt = prompt_of(128);
  const SequenceId first = server.start(prompt, 1);
  server.run(first);
  TenantKey other;
  other.bytes[0] = std::byte{1};
  const auto second = server.engine.open(
      {.prompt = prompt, .reserve_tokens = 128, .reuse_tokens_max = 128, .sampling = {}, .tenant = other});
  EXPECT_EQ(server.engine.sequence(second.value()).cached_tokens, 0u);
}

TEST(Engine, OtherTenantHitsThePublicPrefixOnly) {
  Server server(64);
  TenantKey one, other;
  const PublicPrefix shared{{{std::byte{9}}}, 200};
  one.bytes[0] = std::byte{1};
  other.bytes[0] = std::byte{2};
  const auto prompt = prompt_of(256);  // 4 blocks, of which 3 are public and the last one partly
  const auto open = [&](const TenantKey& tenant, const PublicPrefix& prefix) {
    return server.engine
        .open({.prompt = prompt,
               .reserve_tokens = 320,
               .reuse_tokens_max = 256,
               .sampling = {},
               .tenant = tenant,
               .public_prefix = prefix})
        .value();
  };
  const SequenceId first = open(one, shared);
  server.engine.begin_prefill(first);
  while (server.engine.sequence(first).tokens.size() < 320) server.step();  // 4 blocks and a full one of output
  EXPECT_EQ(server.engine.sequence(open(one, shared)).cached_tokens, 256u);
  EXPECT_EQ(server.engine.sequence(open(other, shared)).cached_tokens, 192u);
  EXPECT_EQ(server.engine.sequence(open(other, {})).cached_tokens, 0u) << "not said to be public any more";
}

TEST(Engine, LongPromptDoesNotStallRunningDecodes) {
  Server server(64);
  const SequenceId decoding = server.start(prompt_of(10), 100);
  server.step();
  server.start(prompt_of(1000, 500), 2);
  for (int i = 0; i < 8; ++i) {
    const auto tokens = server.step();
    EXPECT_EQ(std::ranges::count(tokens, decoding, &EngineToken::sequence), 1) << i;
  }
  EXPECT_EQ(server.engine.queued_prompt_tokens(), 0u);
}

TEST(Engine, FullPoolAnswersNoSpaceAndHasRoomAfterAClose) {
  Server server(4);
  const SequenceId first = server.start(prompt_of(128), 1);
  const SequenceId second = server.start(prompt_of(128, 1), 1);
  server.run(first);
  const auto refused = server.open(prompt_of(65, 2), 1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kNoSpace);
  server.engine.check_conservation();
  server.engine.close(second);
  const auto prompt = prompt_of(65, 2);
  EXPECT_EQ(server.run(server.start(prompt, 1)), fake_reference(prompt, 1, 0));
}

TEST(Engine, FullTableAnswersNoSpaceUntilTheStepOfTheClosedIsDone) {
  Server server(8, 1);
  const SequenceId first = server.start(prompt_of(10), 5);
  const StepPlan plan = server.engine.plan().value();
  server.engine.close(first);
  EXPECT_EQ(server.engine.open_sequences(), 0u);
  EXPECT_EQ(server.engine.sequences_free(), 0u);
  EXPECT_EQ(server.open(prompt_of(10, 1), 5).error().code, ErrorCode::kNoSpace);
  std::vector<EngineToken> tokens;
  server.engine.on(server.executor.run(plan), tokens);
  EXPECT_TRUE(tokens.empty());
  EXPECT_TRUE(server.open(prompt_of(10, 1), 5).has_value());
}

TEST(Engine, SlotsOfAClosedSequenceStayUntilItsStepIsDone) {
  Server server(4);
  const SequenceId first = server.start(prompt_of(200), 1);
  const auto plan = server.engine.plan();
  server.engine.close(first);
  server.engine.check_conservation();
  EXPECT_EQ(server.cache.counts().held, 4u);
  EXPECT_TRUE(server.engine.completed_by(*plan).empty());
  std::vector<EngineToken> tokens;
  server.engine.on(server.executor.run(*plan), tokens);
  EXPECT_TRUE(tokens.empty());
  EXPECT_EQ(server.cache.counts().held, 0u);
  EXPECT_EQ(server.cache.counts().cached, 2u);  // what the step computed is not wasted
  EXPECT_FALSE(server.engine.plan().has_value());
}

TEST(Engine, ClosedBetweenStepsReturnsItsSlotsAtOnce) {
  Server server(4);
  const SequenceId idle = server.open(prompt_of(100), 1).value();
  EXPECT_EQ(server.cache.counts().held, 2u);
  server.engine.close(idle);
  EXPECT_EQ(server.cache.counts().free, 4u);
}

TEST(Engine, OneStepInFlight) {
  Server server(8);
  server.start(prompt_of(10), 5);
  const auto plan = server.engine.plan();
  ASSERT_TRUE(plan);
  ASSERT_NE(server.engine.step_in_flight(), nullptr);
  EXPECT_EQ(server.engine.step_in_flight()->step, plan->step);
  EXPECT_FALSE(server.engine.plan().has_value());
}

TEST(Engine, SampleRowsCarryParametersPositionAndDigestFlag) {
  Server server(8);
  const SequenceId sequence = server.engine
                                  .open({.prompt = prompt_of(10),
                                         .reserve_tokens = 20,
                                         .reuse_tokens_max = 9,
                                         .sampling = {.temperature = 0.5f, .seed = 77, .choice = 2},
                                         .tenant = {},
                                         .digest_logits = true})
                                  .value();
  server.engine.begin_prefill(sequence);
  for (uint32_t position = 10; position < 13; ++position) {
    const StepPlan plan = server.engine.plan().value();
    const SampleRow& sample = plan.shares[0].sample;
    EXPECT_EQ(sample.position, position);
    EXPECT_EQ(sample.params, (SamplingParams{.temperature = 0.5f, .seed = 77, .choice = 2}));
    EXPECT_TRUE(sample.digest);
    std::vector<EngineToken> tokens;
    server.engine.on(server.executor.run(plan), tokens);
    EXPECT_NE(tokens.at(0).logits_digest, 0u);
  }
}

TEST(Engine, ARowThatLooksBackSeesPromptAndOutput) {
  Server server(8);
  const auto open = [&](const std::vector<TokenId>& prompt, const SamplingParams& sampling) {
    const SequenceId sequence =
        server.engine
            .open({.prompt = prompt, .reserve_tokens = 20, .reuse_tokens_max = 0, .sampling = sampling, .tenant = {}})
            .value();
    server.engine.begin_prefill(sequence);
    return sequence;
  };
  const SequenceId first = open(prompt_of(7), {.presence_penalty = 1});
  open(prompt_of(9), {.temperature = 1, .top_p = 0.5f});
  const SequenceId last = open(prompt_of(10), {.repetition_penalty = 1.5f});
  for (uint32_t output = 0; output < 4; ++output) {
    const StepPlan plan = server.engine.plan().value();
    ASSERT_EQ(plan.shares.size(), 3u);
    for (const StepShare& share : plan.shares) {
      const SampleRow row = sample_row(plan, share);
      EXPECT_EQ(row.prompt_tokens + output, row.position);
      const bool looks_back = share.sequence == first || share.sequence == last;
      const std::vector<TokenId> seen(row.history.begin(), row.history.end());
      EXPECT_EQ(seen, looks_back ? server.engine.sequence(share.sequence).tokens : std::vector<TokenId>{});
    }
    EXPECT_EQ(plan.history.size(), 7u + 10u + 2 * output);
    std::vector<EngineToken> tokens;
    server.engine.on(server.executor.run(plan), tokens);
  }
}

TEST(Engine, EndTokensAreWithheldFromTheFirstMinTokens) {
  Server server(8);
  const SamplingParams sampling{.min_tokens = 2, .logit_bias = {{9, 1}}};
  const SequenceId sequence = server.engine
                                  .open({.prompt = prompt_of(10),
                                         .reserve_tokens = 20,
                                         .reuse_tokens_max = 0,
                                         .sampling = sampling,
                                         .stop_tokens = {4, 6},
                                         .tenant = {}})
                                  .value();
  server.engine.begin_prefill(sequence);
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (uint32_t output = 0; output < 4; ++output) {
    const StepPlan plan = server.engine.plan().value();
    const std::vector<LogitBias> withheld = {{9, 1}, {4, kNever}, {6, kNever}};
    EXPECT_EQ(plan.shares[0].sample.params.logit_bias, output < 2 ? withheld : sampling.logit_bias) << output;
    std::vector<EngineToken> tokens;
    server.engine.on(server.executor.run(plan), tokens);
  }
}

TEST(Engine, LogitsThatAreNotFiniteFailTheSequenceAndPublishNothing) {
  Server server(8);
  const SequenceId sequence = server.start(prompt_of(64), 5);
  const StepPlan plan = server.engine.plan().value();
  StepDone done = server.executor.run(plan);
  done.sampled[0].finite = false;
  std::vector<EngineToken> tokens;
  server.engine.on(done, tokens);
  ASSERT_EQ(tokens.size(), 1u);
  EXPECT_FALSE(tokens[0].finite);
  EXPECT_EQ(server.cache.counts().cached, 0u);
  EXPECT_FALSE(server.engine.plan().has_value());
  server.engine.close(sequence);
  EXPECT_EQ(server.cache.counts().free, 8u);
}

// The cause may lie in a block that was published before: the next request must not meet it.
TEST(Engine, BlocksOfASequenceWhoseLogitsAreNotFiniteLeaveTheCacheAndOthersGoOn) {
  Server server(16);
  const auto prompt = prompt_of(200);  // its first two blocks are published a step before it samples
  const SequenceId sequence = server.start(prompt, 5), neighbour = server.start(prompt_of(70, 9), 5);
  server.step();
  EXPECT_EQ(server.cache.counts().cached, 2u);
  const StepPlan plan = server.engine.plan().value();
  StepDone done = server.executor.run(plan);
  ASSERT_EQ(done.sampled.at(0).sequence, sequence);
  done.sampled[0].finite = false;
  std::vector<EngineToken> tokens;
  server.engine.on(done, tokens);
  server.engine.close(sequence);
  EXPECT_EQ(server.cache.counts().cached, 1u);  // the neighbour's
  EXPECT_EQ(server.engine.sequence(server.start(prompt, 5)).cached_tokens, 0u);
  std::vector<TokenId> generated;
  for (const EngineToken& token : tokens)
    if (token.sequence == neighbour) generated.push_back(token.token);
  while (generated.size() < 5)
    for (const EngineToken& token : server.step())
      if (token.sequence == neighbour) generated.push_back(token.token);
  EXPECT_EQ(generated, fake_reference(prompt_of(70, 9), 5, 0));
}

// Of a scored prompt any row may tell, also in a step that samples nothing.
TEST(Engine, ScoresThatAreNotFiniteFailTheSequenceAndPublishNothing) {
  Server server(8);
  const SequenceId sequence = server.start(prompt_of(200), 5);
  const StepPlan plan = server.engine.plan().value();
  ASSERT_FALSE(plan.shares.at(0).samples);
  StepDone done = server.executor.run(plan);
  done.scored.push_back({.sequence = sequence, .position_first = 1, .logprob_count = 1, .finite = false});
  std::vector<EngineToken> tokens;
  server.engine.on(done, tokens);
  EXPECT_TRUE(tokens.empty());
  EXPECT_EQ(server.cache.counts().cached, 0u);
  EXPECT_FALSE(server.engine.plan().has_value());
  server.engine.close(sequence);
  EXPECT_EQ(server.cache.counts().free, 8u);
}

TEST(EngineDeathTest, ProgrammerErrorsAreCaught) {
  Server server(8);
  const SequenceId sequence = server.start(prompt_of(10), 5);
  EXPECT_DEATH(server.engine.begin_prefill(sequence), "CHECK failed");
  EXPECT_DEATH(server.engine.close(SequenceId{3}), "CHECK failed");
  std::vector<EngineToken> tokens;
  EXPECT_DEATH(server.engine.on(StepDone{}, tokens), "CHECK failed");
  const StepPlan plan = server.engine.plan().value();
  StepDone done = server.executor.run(plan);
  done.sampled.clear();
  EXPECT_DEATH(server.engine.on(done, tokens), "CHECK failed");
  server.engine.close(sequence);
  EXPECT_DEATH(server.engine.close(sequence), "CHECK failed");
}

}  // namespace
}  // namespace spillway
