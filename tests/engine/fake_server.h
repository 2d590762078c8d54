#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "engine/engine.h"
#include "tests/engine/fake_executor.h"

namespace spillway {

inline constexpr uint32_t kBlockTokens = 64;
inline constexpr uint32_t kChunkTokens = 128;
inline const BlockEncoding kOwn{.numerics = NumericsClass{2}};
inline const BlockEncoding kForeign{.numerics = NumericsClass{1}};

inline std::vector<TokenId> prompt_of(uint32_t size, TokenId first = 0) {
  std::vector<TokenId> prompt(size);
  for (uint32_t i = 0; i < size; ++i) prompt[i] = (first + i * 7) % kFakeVocab;
  return prompt;
}

// One engine with its cache, its memory of hashes and blocks of 64 tokens.
struct Server {
  explicit Server(uint32_t slots, uint32_t sequences = 4, uint32_t max_model_len = 4096,
                  uint32_t growth_margin = std::numeric_limits<uint32_t>::max())
      : cache({.layout = {.layer_count = 2, .kv_heads = 1, .head_dim = 2, .block_tokens = kBlockTokens},
               .model = {},
               .encoding = kOwn,
               .slot_count = slots}),
        engine({.limits = {.tokens_max = kChunkTokens + sequences,
                           .chunk_tokens = kChunkTokens,
                           .sequences_max = sequences},
                .max_model_len = max_model_len,
                .announce_layers = true,
                .vocab = kFakeVocab,
                .growth_margin = growth_margin},
               cache),
        executor(slots, kBlockTokens) {}

  Result<SequenceId> open(const std::vector<TokenId>& prompt, uint32_t output_tokens, uint64_t seed = 0) {
    const auto size = static_cast<uint32_t>(prompt.size());
    return engine.open({.prompt = prompt,
                        .reserve_tokens = size + output_tokens - 1,
                        .reuse_tokens_max = size == 0 ? 0 : size - 1,
                        .sampling = {.seed = seed},
                        .tenant = {},
                        .digest_logits = seed % 2 == 1});
  }
  SequenceId start(const std::vector<TokenId>& prompt, uint32_t output_tokens, uint64_t seed = 0) {
    const SequenceId sequence = open(prompt, output_tokens, seed).value();
    engine.begin_prefill(sequence);
    return sequence;
  }
  std::vector<EngineToken> step() {
    std::vector<EngineToken> tokens;
    const auto plan = engine.plan();
    if (!plan) return tokens;
    engine.on(executor.run(*plan), tokens);
    engine.check_conservation();
    return tokens;
  }
  // Runs until nothing is left to plan; what was generated, by sequence.
  std::vector<TokenId> run(SequenceId sequence) {
    std::vector<TokenId> generated;
    while (engine.step_in_flight() == nullptr) {
      const auto tokens = step();
      if (tokens.empty() && engine.queued_prompt_tokens() == 0) break;
      for (const EngineToken& token : tokens) {
        if (token.sequence != sequence) continue;
        EXPECT_EQ(token.index, generated.size());
        generated.push_back(token.token);
      }
    }
    return generated;
  }

  KvCache cache;
  Engine engine;
  FakeExecutor executor;
};

}  // namespace spillway
