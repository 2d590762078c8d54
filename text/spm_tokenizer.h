#pragma once

#include <array>
#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/bpe_merger.h"
#include "text/vocabulary_tokenizer.h"

namespace spillway {

// SentencePiece's BPE (Kudo and Richardson 2018), as Llama 2, Mistral and TinyLlama have it: spaces become U+2581, one
// stands in front (`add_space_prefix`) and after each matched token; characters are symbols, and while two neighbours
// spell a piece, those of the highest score merge, leftmost first. A character that is no piece becomes its bytes'
// tokens, or, in a vocabulary without byte tokens, a run of them the unknown token. Unused pieces take no part.
//
// The scores are read as BpeMerger's rules, one for each way to cut a piece into two. Text is merged between neighbours
// that no piece has side by side, so working memory and time follow the words and not the text.
class SpmTokenizer final : public VocabularyTokenizer {
 public:
  // For `tokenizer.ggml.model` = llama. Errors as Tokenizer::from_gguf().
  static Result<std::unique_ptr<Tokenizer>> create(const GgufFile& file);
  static constexpr size_t kPieceBytesMax = 256, kPiecesBytesMax = size_t{16} << 20;  // one, and all together

 private:
  using TokenOf = boost::unordered_flat_map<std::string_view, TokenId>;
  SpmTokenizer(Vocabulary vocabulary, SequenceTokens sequence, bool adds_space_prefix);
  Result<void> read_pieces(const GgufFile& file);
  Result<void> read_fallback(const GgufFile& file);
  void add_rules(std::string_view piece, TokenId token, uint32_t rank, const TokenOf& token_of);
  size_t covered_bytes(std::string_view text) const override;
  size_t token_text_bytes_max() const override;
  Result<void> encode_ordinary(std::string_view text, Workspace& workspace,
                               std::vector<TokenId>& tokens) const override;
  void merge_word(Workspace& workspace, std::vector<TokenId>& tokens) const;
  void spell(char32_t character, std::vector<TokenId>& tokens) const;

  const bool adds_space_prefix_;
  bool has_bytes_ = false;
  std::array<TokenId, 256> token_of_byte_{};  // where has_bytes_
  TokenId unknown_ = 0;                       // where not
  size_t piece_bytes_max_ = 1;                // as written: a text may spell U+2581 too
  // Every character of a piece. From vocab_size() on they are no pieces themselves: characters_[symbol - vocab_size()].
  boost::unordered_flat_map<char32_t, TokenId> symbol_of_;
  std::vector<char32_t> characters_;
  boost::unordered_flat_set<uint64_t> neighbours_;  // left << 32 | right: symbols side by side in a piece
  BpeMerger merger_;
};

}  // namespace spillway
