#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

// `tokenizer.ggml.token_type`, with its numbers.
enum class TokenKind : uint8_t {
  kNormal = 1,       // a piece of text
  kUnknown = 2,      // stands for text that has no token; matched and shown as a control token
  kControl = 3,      // structure: matched where special tokens are parsed, shows no text
  kUserDefined = 4,  // text that is always one token, wherever it stands
  kUnused = 5,       // fills the embedding table: never made of text, shows none
  kByte = 6,         // <0xNN>: one byte of a character that has no token; SentencePiece only
};

// How normal tokens are written in the file.
enum class TokenSpelling : uint8_t { kByteAlphabet, kSentencePiece };

// The tokens of a GGUF file as bytes: `tokenizer.ggml.tokens`, decoded where they are written in a spelling (normal and
// byte tokens), and their kinds. A user-defined token whose name ends generation (sequence_tokens.h) is a control
// token, as in llama.cpp: some converters mark it wrongly. Immutable after read().
class Vocabulary {
 public:
  // kUnsupported naming a token of a kind that there is not or not in this spelling, or that is too long. kCorrupt: a
  // token that is not of the spelling, lists of unequal length, or more tokens than the embedding table has rows.
  static Result<Vocabulary> read(const GgufFile& file, TokenSpelling spelling);

  uint32_t size() const { return static_cast<uint32_t>(kinds_.size()); }
  // REQUIRES: token < size(). bytes(): of an unused token none.
  std::string_view bytes(TokenId token) const;
  TokenKind kind(TokenId token) const;
  bool is_special(TokenId token) const {  // structure and no text
    return kind(token) == TokenKind::kControl || kind(token) == TokenKind::kUnknown;
  }

 private:
  Result<void> add(const std::string& written, int64_t type, TokenSpelling spelling);

  std::string bytes_;  // of all tokens, one after the other: a string each would be 49,152 allocations
  std::vector<uint32_t> ends_;
  std::vector<TokenKind> kinds_;
};

}  // namespace spillway
