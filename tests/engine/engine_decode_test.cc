#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/fake_server.h"

namespace spillway {
namespace {

TEST(EngineCompletedBy, NamesEachBlockOnceWithTheStepThatFillsIt) {
  Server server(64);
  const SequenceId sequence = server.start(prompt_of(300), 40);
  std::vector<CompletedBlocks> completed;
  while (const auto plan = server.engine.plan()) {
    for (const CompletedBlocks& blocks : server.engine.completed_by(*plan)) completed.push_back(blocks);
    std::vector<EngineToken> tokens;
    server.engine.on(server.executor.run(*plan), tokens);
  }
  // Chunks end at 128, 256 and 300, where the tail counts; decoding fills it at 320.
  EXPECT_EQ(completed,
            (std::vector<CompletedBlocks>{{sequence, 0, 2}, {sequence, 2, 2}, {sequence, 4, 1}, {sequence, 4, 1}}));
}

TEST(EngineCompletedBy, StartsAfterTheCachedPrefix) {
  Server server(64);
  const SequenceId first = server.start(prompt_of(128), 1);
  server.run(first);
  const SequenceId second = server.start(prompt_of(150), 1);
  EXPECT_EQ(server.engine.completed_by(server.engine.plan().value()), (std::vector<CompletedBlocks>{{second, 2, 1}}));
}

// What a decode node does: the prompt's KV arrives from outside in the reserved slots.
struct Handover {
  Handover(const std::vector<TokenId>& prompt, uint32_t output_tokens, const BlockEncoding& landed) {
    const SequenceId source = prefill.start(prompt, 1);
    const TokenId first = prefill.run(source).at(0);
    const auto size = static_cast<uint32_t>(prompt.size());
    sequence = decode.engine
                   .open({.prompt = prompt,
                          .reserve_tokens = size + output_tokens - 1,
                          .reuse_tokens_max = size,
                          .sampling = {},
                          .tenant = {}})
                   .value();
    const Sequence& into = decode.engine.sequence(sequence);
    for (size_t block = into.sealed_blocks; block < (size + kBlockTokens - 1) / kBlockTokens; ++block) {
      std::ranges::copy(prefill.executor.block(prefill.engine.sequence(source).blocks[block].slot()),
                        decode.executor.block(into.blocks[block].slot()).begin());
    }
    decode.engine.begin_decode(sequence, first, landed);
    generated = {first};
  }
  void run() {
    for (auto tokens = decode.step(); !tokens.empty(); tokens = decode.step()) {
      EXPECT_EQ(tokens[0].index, generated.size());
      generated.push_back(tokens[0].token);
    }
  }
  Server prefill{64}, decode{64};
  SequenceId sequence{};
  std::vector<TokenId> generated;
};

TEST(EngineDecode, GoesOnFromLandedBlocksAndSharesThem) {
  const auto prompt = prompt_of(200);
  Handover handover(prompt, 100, kOwn);
  EXPECT_EQ(handover.decode.cache.counts().cached, 3u);  // the prompt's full blocks, at once
  handover.run();
  EXPECT_EQ(handover.generated, fake_reference(prompt, 100, 0));
  EXPECT_EQ(handover.decode.cache.counts().cached, 4u);
  EXPECT_EQ(handover.decode.engine.sequence(handover.sequence).encoding, kOwn);
}

TEST(EngineDecode, BlocksOfAnotherClassAndOverThemAreNeverShared) {
  const auto prompt = prompt_of(200);
  Handover handover(prompt, 100, kForeign);
  handover.run();
  EXPECT_EQ(handover.generated, fake_reference(prompt, 100, 0));
  EXPECT_EQ(handover.decode.cache.counts().cached, 0u);
  EXPECT_EQ(handover.decode.engine.sequence(handover.sequence).encoding.numerics, kNumericsMixed);
}

TEST(EngineDecode, WholePromptInCacheStaysInItsOwnClass) {
  Server server(64);
  const auto prompt = prompt_of(128);
  server.run(server.start(prompt, 1));
  const SequenceId second =
      server.engine
          .open({.prompt = prompt, .reserve_tokens = 200, .reuse_tokens_max = 128, .sampling = {}, .tenant = {}})
          .value();
  server.engine.begin_decode(second, 5, kForeign);
  EXPECT_EQ(server.engine.sequence(second).encoding, kOwn);  // nothing of the other class came in
}

TEST(EngineDecode, ReserveOfThePromptAloneIsNeverPlanned) {
  Handover handover(prompt_of(100), 1, kOwn);
  EXPECT_FALSE(handover.decode.engine.plan().has_value());
}

}  // namespace
}  // namespace spillway
