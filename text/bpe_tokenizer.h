#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <memory>
#include <string_view>
#include <vector>

#include "text/bpe_merger.h"
#include "text/pre_tokenizer.h"
#include "text/vocabulary_tokenizer.h"

namespace spillway {

// Byte-level BPE as GPT-2 introduced it: words of the pre-tokeniser, each byte a token, neighbours merged by rank.
// With some pre-tokenisers a word that is a token is that token, whatever the merges (`ignore_merges` of tokenizers).
// A byte that the vocabulary has no token for is dropped before merging, so its neighbours may merge (as PyPI
// `tokenizers` does without an unknown token; llama.cpp lets them not).
class BpeTokenizer final : public VocabularyTokenizer {
 public:
  // For `tokenizer.ggml.model` = gpt2. Errors as Tokenizer::from_gguf().
  static Result<std::unique_ptr<Tokenizer>> create(const GgufFile& file);

 private:
  BpeTokenizer(Vocabulary vocabulary, SequenceTokens sequence, PreTokenizer pre_tokenizer);
  Result<void> read_merges(const GgufFile& file);
  size_t covered_bytes(std::string_view text) const override;
  Result<void> encode_ordinary(std::string_view text, Workspace& workspace,
                               std::vector<TokenId>& tokens) const override;

  void encode_word(std::string_view word, Workspace& workspace, std::vector<TokenId>& tokens) const;

  PreTokenizer pre_tokenizer_;
  BpeMerger merger_;
  std::array<TokenId, 256> token_of_byte_;
  boost::unordered_flat_map<std::string_view, TokenId> token_of_word_;  // empty where merges decide alone
};

}  // namespace spillway
