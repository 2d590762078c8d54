#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "text/bpe_merger.h"
#include "text/sequence_tokens.h"
#include "text/special_token_matcher.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace spillway {

// What the tokenisers share: a vocabulary, and cutting text at control and user-defined tokens. What lies between is
// the derived class's.
class VocabularyTokenizer : public Tokenizer {
 public:
  Result<std::vector<TokenId>> encode_up_to(std::span<const TextPart> parts, size_t tokens_max) const override;
  size_t tokens_at_least(std::span<const TextPart> parts) const override;
  std::string_view token_bytes(TokenId token) const override { return vocabulary_.bytes(token); }
  bool is_special(TokenId token) const override { return vocabulary_.is_special(token); }
  uint32_t vocab_size() const override { return vocabulary_.size(); }
  std::optional<TokenId> begin_of_sequence() const override { return sequence_.begin; }
  bool adds_begin_of_sequence() const override { return sequence_.adds_begin; }
  TokenId end_of_sequence() const override { return sequence_.end; }
  std::span<const TokenId> end_of_generation() const override { return sequence_.generation_ends; }

 protected:
  // Memory that one encode_up_to() reuses, and its bound.
  struct Workspace {
    size_t tokens_max = kNoLimit;
    std::vector<std::string_view> words;
    std::vector<TokenId> symbols, merged;
    BpeMerger::Workspace merging;
  };
  VocabularyTokenizer(Vocabulary vocabulary, SequenceTokens sequence);
  const Vocabulary& vocabulary() const { return vocabulary_; }
  // The bytes of `text` that tokens must cover, and how many of them one token covers at most.
  virtual size_t covered_bytes(std::string_view text) const = 0;
  virtual size_t token_text_bytes_max() const { return token_bytes_max_; }
  // Appends the tokens of `text`: valid UTF-8, not empty, the whole between two matched tokens or the text's ends. May
  // end early where there are more than Workspace::tokens_max.
  virtual Result<void> encode_ordinary(std::string_view text, Workspace& workspace,
                                       std::vector<TokenId>& tokens) const = 0;

 private:
  const Vocabulary vocabulary_;
  const SequenceTokens sequence_;
  SpecialTokenMatcher user_defined_, all_;  // what counts in text, and where special tokens are parsed
  size_t token_bytes_max_ = 1;
};

}  // namespace spillway
