#include "text/bpe_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "common/quote.h"

namespace spillway {
namespace {

constexpr TokenId kNoToken = UINT32_MAX;  // far above any vocabulary
constexpr size_t kWordsAtOnce = 1024;     // between looks at whether enough is known

}  // namespace

BpeTokenizer::BpeTokenizer(Vocabulary vocabulary, SequenceTokens sequence, PreTokenizer pre_tokenizer)
    : VocabularyTokenizer(std::move(vocabulary), std::move(sequence)), pre_tokenizer_(std::move(pre_tokenizer)) {
  token_of_byte_.fill(kNoToken);
  for (TokenId token = 0; token < vocab_size(); ++token) {
    if (this->vocabulary().kind(token) != TokenKind::kNormal) continue;
    const std::string_view bytes = token_bytes(token);
    if (bytes.size() == 1) token_of_byte_[static_cast<uint8_t>(bytes[0])] = token;
    if (pre_tokenizer_.keeps_whole_words()) token_of_word_.emplace(bytes, token);
  }
}

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::create(const GgufFile& file) {
  const Result<std::string> pre = file.get_string("tokenizer.ggml.pre");
  if (!pre) return tl::unexpected<Error>(pre.error());
  Result<PreTokenizer> pre_tokenizer = PreTokenizer::create(*pre);
  if (!pre_tokenizer) return tl::unexpected<Error>(pre_tokenizer.error());
  Result<Vocabulary> vocabulary = Vocabulary::read(file, TokenSpelling::kByteAlphabet);
  if (!vocabulary) return tl::unexpected<Error>(vocabulary.error());
  Result<SequenceTokens> sequence = SequenceTokens::read(file, *vocabulary, pre_tokenizer->adds_begin_of_sequence());
  if (!sequence) return tl::unexpected<Error>(sequence.error());
  auto tokenizer = std::unique_ptr<BpeTokenizer>(
      new BpeTokenizer(std::move(*vocabulary), std::move(*sequence), std::move(*pre_tokenizer)));
  if (const Result<void> read = tokenizer->read_merges(file); !read) return tl::unexpected<Error>(read.error());
  return tokenizer;
}

// Merges are written as two tokens with a space between; the alphabet writes a space of the text as another character.
Result<void> BpeTokenizer::read_merges(const GgufFile& file) {
  const Result<const std::vector<std::string>*> tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens) return tl::unexpected<Error>(tokens.error());
  const Result<const std::vector<std::string>*> merges = file.get_strings("tokenizer.ggml.merges");
  if (!merges) return tl::unexpected<Error>(merges.error());
  boost::unordered_flat_map<std::string_view, TokenId> token_of;
  for (TokenId token = 0; token < vocab_size(); ++token) {
    if (vocabulary().kind(token) != TokenKind::kNormal) continue;
    if (!token_of.emplace((**tokens)[token], token).second)
      return fail(ErrorCode::kCorrupt, fmt::format("token {} is there twice in tokenizer.ggml.tokens", token));
  }
  for (size_t rank = 0; rank < (*merges)->size(); ++rank) {
    const std::string_view merge = (**merges)[rank];
    const size_t space = merge.find(' ');
    const auto left = token_of.find(merge.substr(0, space));
    const auto right = token_of.find(space == std::string_view::npos ? "" : merge.substr(space + 1));
    const auto merged = left == token_of.end() || right == token_of.end()
                            ? token_of.end()
                            : token_of.find(std::string(left->first).append(right->first));
    if (merged == token_of.end())
      return fail(ErrorCode::kCorrupt, fmt::format("merge {} is {}: it must be two tokens that together are a third",
                                                   rank, quote_foreign(merge)));
    merger_.add_rule(left->second, right->second, {static_cast<uint32_t>(rank), merged->second});
  }
  return {};
}

Result<void> BpeTokenizer::encode_ordinary(std::string_view text, Workspace& workspace,
                                           std::vector<TokenId>& tokens) const {
  for (size_t position = 0; position < text.size() && tokens.size() <= workspace.tokens_max;) {
    workspace.words.clear();
    const Result<size_t> end = pre_tokenizer_.split_some(text, position, kWordsAtOnce, workspace.words);
    if (!end) return tl::unexpected<Error>(end.error());
    position = *end;
    for (const std::string_view word : workspace.words) encode_word(word, workspace, tokens);
  }
  return {};
}

void BpeTokenizer::encode_word(std::string_view word, Workspace& workspace, std::vector<TokenId>& tokens) const {
  if (const auto whole = token_of_word_.find(word); whole != token_of_word_.end())
    return tokens.push_back(whole->second);
  workspace.symbols.clear();
  for (const char byte : word)
    if (const TokenId token = token_of_byte_[static_cast<uint8_t>(byte)]; token != kNoToken)
      workspace.symbols.push_back(token);
  merger_.merge(workspace.symbols, workspace.merging, tokens);
}

// Bytes without a token are dropped.
size_t BpeTokenizer::covered_bytes(std::string_view text) const {
  return static_cast<size_t>(
      std::ranges::count_if(text, [&](char byte) { return token_of_byte_[static_cast<uint8_t>(byte)] != kNoToken; }));
}

}  // namespace spillway
