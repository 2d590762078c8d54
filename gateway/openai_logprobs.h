#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <vector>

#include "common/logprobs.h"
#include "gateway/openai_response.h"
#include "text/tokenizer.h"

// How probable tokens were, in OpenAI's two shapes. Pure; any thread.
namespace spillway {

struct ScoredToken {
  TokenId token = 0;
  std::vector<TokenLogprob>
      logprobs{};          // as in common/logprobs.h; empty: the first of a prompt, which nothing predicts
  size_t text_offset = 0;  // characters of the choice's text before it
};

// Completions: {tokens, token_logprobs, top_logprobs, text_offset}, the token itself in each top list. Chat: {content:
// [{token, logprob, bytes, top_logprobs}], refusal}. A token that is not text by itself is spelled "bytes:\xNN...".
nlohmann::ordered_json logprobs_json(Endpoint endpoint, const Tokenizer& tokenizer,
                                     std::span<const ScoredToken> tokens);

// Characters (code points) of UTF-8.
size_t character_count(std::string_view text);

}  // namespace spillway
