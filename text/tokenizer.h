#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

enum class SpecialTokens : uint8_t { kAsText, kParse };

// Text to token ids and back, from GGUF metadata (`tokenizer.ggml.model` = gpt2 with a known `tokenizer.ggml.pre`).
// Immutable after construction: any thread may call the const functions at once.
class Tokenizer {
 public:
  // Copies what it needs out of `file`. kUnsupported names the model, pre-tokeniser or kind of token and what is
  // supported; kInvalidArgument an absent key; kCorrupt tokens, merges or ids that contradict each other.
  static Result<std::unique_ptr<Tokenizer>> from_gguf(const GgufFile& file);
  virtual ~Tokenizer() = default;
  // Adds no BOS or EOS. kInvalidArgument when text is longer than text_bytes_max() or not valid UTF-8. Bytes
  // that the vocabulary has no token for are dropped. Working memory: up to 50 resident bytes a byte of text.
  virtual Result<std::vector<TokenId>> encode(std::string_view text, SpecialTokens special) const = 0;
  // The bytes a token stands for; may be part of a UTF-8 character. Special tokens give their text. The view lives as
  // long as the tokenizer. REQUIRES, as is_special(): token < vocab_size().
  virtual std::string_view token_bytes(TokenId token) const = 0;
  virtual bool is_special(TokenId token) const = 0;
  virtual uint32_t vocab_size() const = 0;
  virtual TokenId end_of_sequence() const = 0;  // ends generation
  virtual TokenId begin_of_sequence() const = 0;
  static constexpr size_t text_bytes_max() { return size_t{4} << 20; }
};

}  // namespace spillway
