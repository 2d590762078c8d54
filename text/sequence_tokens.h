#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

class Vocabulary;

// The tokens that begin and end a sequence.
struct SequenceTokens {
  std::optional<TokenId> begin;  // `tokenizer.ggml.bos_token_id`
  bool adds_begin = false;       // whether a prompt begins with it: `add_bos_token`, else the tokeniser's own habit
  TokenId end = 0;               // `eos_token_id`
  // All that end an answer, ascending: `end`, `eot_token_id` and `eom_token_id` where the file has them, and every
  // control token of a known name. A normal token of such a name (Qwen2 has a "</s>") is text and ends nothing.
  std::vector<TokenId> generation_ends;

  // kInvalidArgument: no eos_token_id, or adds_begin without bos_token_id. kCorrupt: an id beyond the vocabulary.
  static Result<SequenceTokens> read(const GgufFile& file, const Vocabulary& vocabulary, bool adds_begin_by_default);
};

// Whether a token written so ends an answer in the models that have it: <|eot_id|>, <|im_end|>, <end_of_turn>, ...
// (the names that llama.cpp knows for the model families here; those of infilling code are none).
bool is_end_of_generation(std::string_view written);

}  // namespace spillway
