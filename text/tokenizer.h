#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

enum class SpecialTokens : uint8_t { kAsText, kParse };

// A stretch of a text, and whether control tokens spelled in it count as such. User-defined tokens always do.
struct TextPart {
  std::string_view text;
  SpecialTokens special = SpecialTokens::kAsText;
};

// Text to token ids and back, from GGUF metadata (`tokenizer.ggml.model` = gpt2 with a known `tokenizer.ggml.pre`, or
// llama). Immutable after construction: any thread may call the const functions at once.
class Tokenizer {
 public:
  // Copies what it needs out of `file`. kUnsupported names the model, pre-tokeniser or kind of token and what is
  // supported; kInvalidArgument an absent key; kCorrupt tokens, merges, scores or ids that contradict each other.
  static Result<std::unique_ptr<Tokenizer>> from_gguf(const GgufFile& file);
  virtual ~Tokenizer() = default;
  // The tokens of the parts as one text: where no token of a part's own stands between them, words go on from part to
  // part. Adds no BOS or EOS. kInvalidArgument when the text is longer than text_bytes_max() or a part is not valid
  // UTF-8. Bytes that a gpt2 vocabulary has no token for are dropped; a llama one has its byte tokens or its unknown
  // token for them. Working memory: up to 60 resident bytes a byte of text.
  Result<std::vector<TokenId>> encode_parts(std::span<const TextPart> parts) const {
    return encode_up_to(parts, kNoLimit);
  }
  // The same where the text has at most `tokens_max` tokens. Where it has more, only that is told: more than tokens_max
  // of its first ones come back, and little work is spent on the rest.
  virtual Result<std::vector<TokenId>> encode_up_to(std::span<const TextPart> parts, size_t tokens_max) const = 0;
  static constexpr size_t kNoLimit = SIZE_MAX;
  // No fewer tokens than this can stand for the parts: the bytes that must show in tokens, by as many as one token has
  // at most. Says what is too long before the work of encoding it.
  virtual size_t tokens_at_least(std::span<const TextPart> parts) const = 0;
  Result<std::vector<TokenId>> encode(std::string_view text, SpecialTokens special) const {
    const TextPart part{text, special};
    return encode_parts({&part, 1});
  }
  // What the model is to be asked with: encode_parts(), and in front begin_of_sequence() where the model wants it and
  // the text does not spell it there itself, so that it is there once.
  Result<std::vector<TokenId>> encode_prompt(std::span<const TextPart> parts, size_t tokens_max = kNoLimit) const;
  Result<std::vector<TokenId>> encode_prompt(std::string_view text, SpecialTokens special) const {
    const TextPart part{text, special};
    return encode_prompt({&part, 1});
  }
  // The bytes a token stands for; may be part of a UTF-8 character. Special tokens give their text, unused ones none.
  // The tokens of a text spell it; with a llama vocabulary mostly after a space that stands in front of the text and
  // after each special token. The view lives as long as the tokenizer. REQUIRES, as is_special(): token < vocab_size().
  virtual std::string_view token_bytes(TokenId token) const = 0;
  virtual bool is_special(TokenId token) const = 0;  // structure, which answers do not show
  virtual uint32_t vocab_size() const = 0;
  virtual std::optional<TokenId> begin_of_sequence() const = 0;
  virtual bool adds_begin_of_sequence() const = 0;  // then there is one
  virtual TokenId end_of_sequence() const = 0;
  // All tokens that end an answer, end_of_sequence() among them; ascending.
  virtual std::span<const TokenId> end_of_generation() const = 0;
  static constexpr size_t text_bytes_max() { return size_t{4} << 20; }
};

}  // namespace spillway
