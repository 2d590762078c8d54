#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

// The tokens of a GGUF file as bytes: `tokenizer.ggml.tokens`, decoded from the byte alphabet where they are ordinary
// ones, and `tokenizer.ggml.token_type`. Immutable after read().
class Vocabulary {
 public:
  // kUnsupported naming a token of another kind than normal or control. kCorrupt: a token that is not of the byte
  // alphabet, lists of unequal length, ids outside, or more tokens than the embedding table has rows.
  static Result<Vocabulary> read(const GgufFile& file);

  uint32_t size() const { return static_cast<uint32_t>(is_special_.size()); }
  // REQUIRES: token < size().
  std::string_view bytes(TokenId token) const;
  bool is_special(TokenId token) const;  // a control token
  TokenId end_of_sequence() const { return end_of_sequence_; }
  TokenId begin_of_sequence() const { return begin_of_sequence_; }

 private:
  Result<void> add(const std::string& written, int64_t type);

  std::string bytes_;  // of all tokens, one after the other: a string each would be 49,152 allocations
  std::vector<uint32_t> ends_;
  std::vector<bool> is_special_;
  TokenId end_of_sequence_ = 0, begin_of_sequence_ = 0;
};

}  // namespace spillway
