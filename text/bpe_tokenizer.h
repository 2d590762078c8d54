#pragma once

#include <array>
#include <memory>
#include <string_view>
#include <vector>

#include "text/bpe_merger.h"
#include "text/pre_tokenizer.h"
#include "text/special_token_matcher.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace spillway {

// Byte-level BPE as GPT-2 introduced it: words of the pre-tokeniser, each byte a token, neighbours merged by rank.
// A byte that the vocabulary has no token for is dropped before merging, so its neighbours may merge (as PyPI
// `tokenizers` does without an unknown token; llama.cpp lets them not).
class BpeTokenizer final : public Tokenizer {
 public:
  // For `tokenizer.ggml.model` = gpt2. Errors as Tokenizer::from_gguf().
  static Result<std::unique_ptr<Tokenizer>> create(const GgufFile& file);

  Result<std::vector<TokenId>> encode(std::string_view text, SpecialTokens special) const override;
  std::string_view token_bytes(TokenId token) const override { return vocabulary_.bytes(token); }
  bool is_special(TokenId token) const override { return vocabulary_.is_special(token); }
  uint32_t vocab_size() const override { return vocabulary_.size(); }
  TokenId end_of_sequence() const override { return vocabulary_.end_of_sequence(); }
  TokenId begin_of_sequence() const override { return vocabulary_.begin_of_sequence(); }

 private:
  struct Workspace;
  BpeTokenizer(Vocabulary vocabulary, PreTokenizer pre_tokenizer);
  Result<void> read_merges(const GgufFile& file);
  Result<void> encode_ordinary(std::string_view text, Workspace& workspace, std::vector<TokenId>& tokens) const;

  Vocabulary vocabulary_;
  PreTokenizer pre_tokenizer_;
  SpecialTokenMatcher special_tokens_;
  BpeMerger merger_;
  std::array<TokenId, 256> token_of_byte_;
};

}  // namespace spillway
