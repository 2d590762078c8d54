#include "text/spm_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/quote.h"
#include "text/utf8.h"

namespace spillway {
namespace {

constexpr char32_t kSpace = 0x2581;
constexpr TokenId kNoToken = UINT32_MAX;  // far above any vocabulary

// Rank 0 is the highest score; equal scores share one.
Result<std::vector<uint32_t>> read_ranks(const GgufFile& file, size_t count) {
  const Result<const std::vector<double>*> read = file.get_floats("tokenizer.ggml.scores");
  if (!read) return tl::unexpected<Error>(read.error());
  const std::vector<double>& scores = **read;
  if (scores.size() != count)
    return fail(ErrorCode::kCorrupt,
                fmt::format("tokenizer.ggml.tokens has {} items, tokenizer.ggml.scores {}", count, scores.size()));
  if (const auto bad = std::ranges::find_if(scores, [](double score) { return std::isnan(score); });
      bad != scores.end())
    return fail(ErrorCode::kCorrupt, fmt::format("the score of token {} is not a number", bad - scores.begin()));
  std::vector<double> descending = scores;
  std::ranges::sort(descending, std::greater<>());
  const auto same = std::ranges::unique(descending);
  descending.erase(same.begin(), same.end());
  std::vector<uint32_t> ranks;
  ranks.reserve(count);
  for (const double score : scores)
    ranks.push_back(
        static_cast<uint32_t>(std::ranges::lower_bound(descending, score, std::greater<>()) - descending.begin()));
  return ranks;
}

}  // namespace

SpmTokenizer::SpmTokenizer(Vocabulary vocabulary, SequenceTokens sequence, bool adds_space_prefix)
    : VocabularyTokenizer(std::move(vocabulary), std::move(sequence)), adds_space_prefix_(adds_space_prefix) {}

Result<std::unique_ptr<Tokenizer>> SpmTokenizer::create(const GgufFile& file) {
  constexpr std::string_view kPrefix = "tokenizer.ggml.add_space_prefix";
  Result<Vocabulary> vocabulary = Vocabulary::read(file, TokenSpelling::kSentencePiece);
  if (!vocabulary) return tl::unexpected<Error>(vocabulary.error());
  Result<SequenceTokens> sequence = SequenceTokens::read(file, *vocabulary, true);
  if (!sequence) return tl::unexpected<Error>(sequence.error());
  const Result<bool> prefix = file.contains(kPrefix) ? file.get_bool(kPrefix) : Result<bool>(true);
  if (!prefix) return tl::unexpected<Error>(prefix.error());
  auto tokenizer =
      std::unique_ptr<SpmTokenizer>(new SpmTokenizer(std::move(*vocabulary), std::move(*sequence), *prefix));
  if (const Result<void> read = tokenizer->read_pieces(file); !read) return tl::unexpected<Error>(read.error());
  if (const Result<void> read = tokenizer->read_fallback(file); !read) return tl::unexpected<Error>(read.error());
  return tokenizer;
}

Result<void> SpmTokenizer::read_pieces(const GgufFile& file) {
  const Result<const std::vector<std::string>*> written = file.get_strings("tokenizer.ggml.tokens");
  if (!written) return tl::unexpected<Error>(written.error());
  const Result<std::vector<uint32_t>> ranks = read_ranks(file, vocab_size());
  if (!ranks) return tl::unexpected<Error>(ranks.error());
  TokenOf token_of;
  size_t bytes = 0;
  for (TokenId token = 0; token < vocab_size(); ++token) {
    if (vocabulary().kind(token) != TokenKind::kNormal) continue;
    const std::string_view piece = (**written)[token];
    bytes += piece.size();
    piece_bytes_max_ = std::max(piece_bytes_max_, piece.size());
    if (piece.size() > kPieceBytesMax || bytes > kPiecesBytesMax)
      return fail(ErrorCode::kUnsupported, fmt::format("token {}: pieces of more than {} bytes, or {} together", token,
                                                       kPieceBytesMax, kPiecesBytesMax));
    if (!token_of.emplace(piece, token).second)
      return fail(ErrorCode::kCorrupt, fmt::format("token {} is there twice in tokenizer.ggml.tokens", token));
    if (const Utf8Step first = next_utf8(piece); first.length == piece.size())
      symbol_of_.emplace(first.character, token);
  }
  for (const auto& [piece, token] : token_of) {
    for (size_t at = 0; at < piece.size();) {
      const Utf8Step step = next_utf8(piece.substr(at));
      const auto next = static_cast<TokenId>(vocab_size() + characters_.size());
      if (symbol_of_.emplace(step.character, next).second) characters_.push_back(step.character);
      at += step.length;
    }
  }
  for (TokenId token = 0; token < vocab_size(); ++token)
    if (vocabulary().kind(token) == TokenKind::kNormal) add_rules((**written)[token], token, (*ranks)[token], token_of);
  return {};
}

// One for each place where `piece` can be cut into two symbols.
void SpmTokenizer::add_rules(std::string_view piece, TokenId token, uint32_t rank, const TokenOf& token_of) {
  const auto symbol = [&](std::string_view part) {
    if (const Utf8Step first = next_utf8(part); first.length == part.size())
      return symbol_of_.find(first.character)->second;
    const auto found = token_of.find(part);
    return found == token_of.end() ? kNoToken : found->second;
  };
  TokenId before = kNoToken;
  for (size_t at = 0; at < piece.size();) {
    const Utf8Step step = next_utf8(piece.substr(at));
    const TokenId here = symbol_of_.find(step.character)->second;
    if (at > 0) {
      neighbours_.insert(uint64_t{before} << 32 | here);
      const TokenId left = symbol(piece.substr(0, at)), right = symbol(piece.substr(at));
      if (left != kNoToken && right != kNoToken) merger_.add_rule(left, right, {rank, token});
    }
    before = here;
    at += step.length;
  }
}

// What a character becomes that is no piece.
Result<void> SpmTokenizer::read_fallback(const GgufFile& file) {
  constexpr std::string_view kUnknown = "tokenizer.ggml.unknown_token_id";
  size_t byte_count = 0;
  token_of_byte_.fill(kNoToken);
  unknown_ = kNoToken;
  for (TokenId token = 0; token < vocab_size(); ++token) {
    if (vocabulary().kind(token) == TokenKind::kUnknown && unknown_ == kNoToken) unknown_ = token;
    if (vocabulary().kind(token) != TokenKind::kByte) continue;
    TokenId& known = token_of_byte_[static_cast<uint8_t>(token_bytes(token)[0])];
    if (known != kNoToken)
      return fail(ErrorCode::kCorrupt, fmt::format("token {} is there twice in tokenizer.ggml.tokens", token));
    known = token;
    ++byte_count;
  }
  has_bytes_ = byte_count > 0;
  if (has_bytes_ && byte_count < token_of_byte_.size())
    return fail(ErrorCode::kCorrupt, fmt::format("there are {} byte tokens: either all 256 or none", byte_count));
  if (file.contains(kUnknown)) {
    const Result<uint64_t> id = file.get_uint(kUnknown);
    if (!id) return tl::unexpected<Error>(id.error());
    if (*id >= vocab_size())
      return fail(ErrorCode::kCorrupt,
                  fmt::format("{} is {}, the vocabulary has {} tokens", kUnknown, *id, vocab_size()));
    unknown_ = static_cast<TokenId>(*id);
  }
  if (!has_bytes_ && unknown_ == kNoToken)
    return fail(ErrorCode::kCorrupt, "there are neither byte tokens nor an unknown token for what is no piece");
  return {};
}

Result<void> SpmTokenizer::encode_ordinary(std::string_view text, Workspace& workspace,
                                           std::vector<TokenId>& tokens) const {
  workspace.symbols.clear();
  const auto take = [&](char32_t character) {
    const auto symbol = symbol_of_.find(character);
    if (symbol == symbol_of_.end()) {
      merge_word(workspace, tokens);
      return spell(character, tokens);
    }
    if (!workspace.symbols.empty() && !neighbours_.contains(uint64_t{workspace.symbols.back()} << 32 | symbol->second))
      merge_word(workspace, tokens);
    workspace.symbols.push_back(symbol->second);
  };
  if (adds_space_prefix_) take(kSpace);
  while (!text.empty() && tokens.size() <= workspace.tokens_max) {
    const Utf8Step step = next_utf8(text);
    take(step.character == ' ' ? kSpace : step.character);
    text.remove_prefix(step.length);
  }
  merge_word(workspace, tokens);
  return {};
}

// Without byte tokens a run of any length is one unknown token.
size_t SpmTokenizer::covered_bytes(std::string_view text) const { return has_bytes_ ? text.size() : 0; }

size_t SpmTokenizer::token_text_bytes_max() const {
  return std::max(piece_bytes_max_, VocabularyTokenizer::token_text_bytes_max());
}

void SpmTokenizer::merge_word(Workspace& workspace, std::vector<TokenId>& tokens) const {
  workspace.merged.clear();
  merger_.merge(workspace.symbols, workspace.merging, workspace.merged);
  workspace.symbols.clear();
  for (const TokenId symbol : workspace.merged) {
    if (symbol < vocab_size()) {
      tokens.push_back(symbol);
    } else {
      spell(characters_[symbol - vocab_size()], tokens);
    }
  }
}

void SpmTokenizer::spell(char32_t character, std::vector<TokenId>& tokens) const {
  if (has_bytes_) {
    std::string bytes;
    append_utf8(bytes, character);
    for (const char byte : bytes) tokens.push_back(token_of_byte_[static_cast<uint8_t>(byte)]);
  } else if (tokens.empty() || tokens.back() != unknown_) {
    tokens.push_back(unknown_);
  }
}

}  // namespace spillway
