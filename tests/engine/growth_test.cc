#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "tests/engine/fake_server.h"

namespace spillway {
namespace {

constexpr uint32_t kModelLen = 4096;

struct Generated {
  std::vector<TokenId> tokens;
  std::vector<uint64_t> digests;
};

// Steps until all `sequences` have `count` tokens each, which closes them.
std::map<SequenceId, Generated> run_all(Server& server, std::vector<SequenceId> sequences, size_t count) {
  std::map<SequenceId, Generated> generated;
  for (int steps = 0; !sequences.empty() && steps < 10'000; ++steps) {
    for (const EngineToken& token : server.step()) {
      Generated& one = generated[token.sequence];
      EXPECT_EQ(token.index, one.tokens.size());
      one.tokens.push_back(token.token);
      one.digests.push_back(token.logits_digest);
      if (one.tokens.size() < count) continue;
      server.engine.close(token.sequence);
      std::erase(sequences, token.sequence);
    }
  }
  EXPECT_TRUE(sequences.empty()) << "they wait for ever";
  return generated;
}

TEST(EngineGrowth, HoldsPromptAndMarginThenTakesBlockByBlock) {
  Server server(64, 4, kModelLen, 64);
  const SequenceId sequence = server.start(prompt_of(100), 1000);
  const auto held = [&] { return server.engine.sequence(sequence).blocks.size(); };
  EXPECT_EQ(held(), 3u);  // of 164 tokens
  while (server.engine.sequence(sequence).tokens.size() < 192) server.step();
  EXPECT_EQ(held(), 3u);
  server.step();
  EXPECT_EQ(server.engine.sequence(sequence).tokens.size(), 193u);
  server.step();
  EXPECT_EQ(held(), 4u);
}

TEST(EngineGrowth, AMarginBeyondTheLimitHoldsNoMoreThanTheLimit) {
  Server server(64);
  EXPECT_EQ(server.engine.sequence(server.start(prompt_of(100), 20)).blocks.size(), 2u);
}

TEST(EngineGrowth, WhatFitsNotEvenAloneIsTooLong) {
  Server server(8, 4, kModelLen, 0);
  EXPECT_EQ(server.open(prompt_of(100), 8 * kBlockTokens - 100 + 2).error().code, ErrorCode::kTooLong);
  EXPECT_TRUE(server.open(prompt_of(100), 8 * kBlockTokens - 100 + 1).has_value());
}

// Four whose answers together need four times the pool.
TEST(EngineGrowth, PreemptedSequencesGiveTheTokensAndDigestsOfThoseAlone) {
  constexpr uint32_t kOutput = 300;
  Server server(8, 4, kModelLen, 16);
  std::vector<SequenceId> sequences;
  std::map<SequenceId, Generated> alone;
  for (uint32_t i = 0; i < 4; ++i) {
    const auto prompt = prompt_of(40 + 30 * i, 100 * i);
    const uint64_t seed = 2 * i + 1;  // odd: digests wanted
    sequences.push_back(server.start(prompt, kOutput, seed));
    Server other(64);
    const SequenceId one = other.start(prompt, kOutput, seed);
    alone[sequences.back()] = run_all(other, {one}, kOutput).at(one);
  }
  const auto together = run_all(server, sequences, kOutput);
  for (const SequenceId sequence : sequences) {
    EXPECT_EQ(together.at(sequence).tokens, alone.at(sequence).tokens);
    EXPECT_EQ(together.at(sequence).digests, alone.at(sequence).digests);
  }
  EXPECT_GT(server.engine.counters().preemptions, 3u);
  EXPECT_GT(server.engine.counters().recomputed_tokens, 0u);
  EXPECT_EQ(server.cache.counts().held, 0u);
}

TEST(EngineGrowth, TheYoungestIsPreemptedTheOldestNeverAndNoneIsAdmittedMeanwhile) {
  Server server(8, 4, kModelLen, 0);
  const SequenceId oldest = server.start(prompt_of(120), 300), middle = server.start(prompt_of(120, 5), 300),
                   youngest = server.start(prompt_of(120, 9), 300);
  using State = Sequence::State;
  const auto state = [&](SequenceId one) { return server.engine.sequence(one).state; };
  while (server.engine.preempted() == 0) server.step();
  EXPECT_EQ(state(youngest), State::kPreempted);
  EXPECT_TRUE(server.engine.sequence(youngest).blocks.empty());
  EXPECT_EQ(state(oldest), State::kDecoding);
  EXPECT_EQ(state(middle), State::kDecoding);
  EXPECT_EQ(server.engine.queued_prompt_tokens(), server.engine.sequence(youngest).tokens.size());
  EXPECT_EQ(server.open(prompt_of(1, 700), 1).error().code, ErrorCode::kNoSpace);

  for (size_t before = server.engine.sequence(oldest).tokens.size(); before < 400; ++before) {
    server.step();  // each one moves it by a token
    EXPECT_EQ(server.engine.sequence(oldest).tokens.size(), before + 1);
  }
  server.engine.close(oldest);
  server.engine.close(youngest);                // while it waits
  EXPECT_EQ(state(middle), State::kPreempted);  // the oldest grew into its slots too
  server.step();
  EXPECT_NE(state(middle), State::kPreempted);
  EXPECT_TRUE(server.open(prompt_of(1, 700), 1).has_value());
  server.engine.check_conservation();
}

// A reservation is not begun: whoever writes to its slots cannot be stopped by a step.
TEST(EngineGrowth, SlotsOfAReservationAreNeverTaken) {
  Server server(4, 4, kModelLen, 0);
  const SequenceId running = server.start(prompt_of(128), 100);
  const SequenceId reserved = server.open(prompt_of(128, 5), 100).value();
  while (server.engine.preempted() == 0) server.step();
  EXPECT_EQ(server.engine.sequence(reserved).blocks.size(), 2u);
  EXPECT_FALSE(server.engine.plan().has_value());  // it waits
  server.engine.close(reserved);
  ASSERT_TRUE(server.engine.plan().has_value());
  EXPECT_EQ(server.engine.sequence(running).state, Sequence::State::kPrefilling);
}

// What the oldest gave up is the oldest's: a younger one that waits as well must not take it.
TEST(EngineGrowth, WhileTheOldestWaitsNobodyYoungerComesBack) {
  Server server(5, 4, kModelLen, 0);
  const SequenceId oldest = server.start(prompt_of(128), 100), younger = server.start(prompt_of(60, 9), 100);
  const SequenceId reserved = server.open(prompt_of(128, 5), 100).value();
  for (int steps = 0; server.engine.sequence(oldest).state != Sequence::State::kPreempted; ++steps) {
    ASSERT_LT(steps, 100);
    server.step();
  }
  EXPECT_EQ(server.engine.sequence(younger).state, Sequence::State::kPreempted);
  EXPECT_FALSE(server.engine.plan().has_value());
  server.engine.close(reserved);
  const auto plan = server.engine.plan();
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->shares[0].sequence, oldest);
}

// The older one has the same prompt, and grows into the younger one's slots while that one's is scored. What the older
// one computed of it lies in the cache, but its scores do not.
TEST(EngineGrowth, APromptThatIsPreemptedIsScoredOnce) {
  for (const TokenId other : {0u, 9u}) {
    SCOPED_TRACE(other);
    constexpr uint32_t kPrompt = 5 * kBlockTokens;
    Server server(10, 4, kModelLen, 0);
    const SequenceId older = server.start(prompt_of(kPrompt, other), 80);
    const SequenceId scored = server.engine
                                  .open({.prompt = prompt_of(kPrompt),
                                         .reserve_tokens = kPrompt + 8,
                                         .reuse_tokens_max = 0,
                                         .sampling = {},
                                         .tenant = {},
                                         .logprob_count = 1,
                                         .score_prompt = true})
                                  .value();
    server.engine.begin_prefill(scored);
    uint32_t position = 0, computed_at_preemption = 0;
    std::vector<TokenId> generated;
    for (int steps = 0; generated.size() < 8; ++steps) {
      ASSERT_LT(steps, 400);
      const auto plan = server.engine.plan();
      ASSERT_TRUE(plan.has_value());
      if (server.engine.counters().preemptions == 1 && computed_at_preemption == 0) computed_at_preemption = position;
      for (const StepShare& share : plan->shares) {
        if (share.sequence != scored || share.score_count == 0) continue;
        ASSERT_EQ(share.position_first, position) << "lacking, or twice";
        position += share.score_count;
      }
      std::vector<EngineToken> tokens;
      server.engine.on(server.executor.run(*plan), tokens);
      for (const EngineToken& token : tokens)
        if (token.sequence == scored) generated.push_back(token.token);
      if (!tokens.empty() && tokens[0].sequence == older && tokens[0].index == 79) server.engine.close(older);
    }
    EXPECT_EQ(position, kPrompt - 1);
    EXPECT_GT(computed_at_preemption, kBlockTokens) << "it was not preempted half-way";
    EXPECT_GT(server.engine.counters().recomputed_tokens, 0u);
    EXPECT_EQ(generated, fake_reference(prompt_of(kPrompt), 8, 0));
  }
}

// Sealed blocks outlive the preemption as cache: only what is not there is computed again.
TEST(EngineGrowth, WhatIsStillCachedIsNotRecomputed) {
  Server server(4, 4, kModelLen, 0);
  const SequenceId running = server.start(prompt_of(128), 100);
  const SequenceId reserved = server.open(prompt_of(64, 5), 100).value();
  const SequenceId other = server.open(prompt_of(64, 9), 100).value();
  while (server.engine.preempted() == 0) server.step();
  server.engine.close(reserved);
  server.engine.close(other);
  const auto plan = server.engine.plan();
  ASSERT_TRUE(plan.has_value());
  EXPECT_EQ(plan->shares[0].position_first, 128u);
  EXPECT_EQ(plan->shares[0].token_count, 1u);
  EXPECT_EQ(server.engine.counters().recomputed_tokens, 0u);
  EXPECT_EQ(server.engine.sequence(running).tokens.size(), 129u);
}

}  // namespace
}  // namespace spillway
