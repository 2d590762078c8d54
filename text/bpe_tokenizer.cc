#include "text/bpe_tokenizer.h"

#include <fmt/format.h>

#include <boost/unordered/unordered_flat_map.hpp>
#include <optional>
#include <string>
#include <utility>

#include "common/quote.h"
#include "text/utf8.h"

namespace spillway {
namespace {

constexpr TokenId kNoToken = UINT32_MAX;  // far above any vocabulary

}  // namespace

struct BpeTokenizer::Workspace {
  std::vector<std::string_view> words;
  std::vector<TokenId> symbols;
  BpeMerger::Workspace merging;
};

BpeTokenizer::BpeTokenizer(Vocabulary vocabulary, PreTokenizer pre_tokenizer)
    : vocabulary_(std::move(vocabulary)), pre_tokenizer_(std::move(pre_tokenizer)) {
  token_of_byte_.fill(kNoToken);
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    const std::string_view bytes = vocabulary_.bytes(token);
    if (vocabulary_.is_special(token)) {
      special_tokens_.add(bytes, token);
    } else if (bytes.size() == 1) {
      token_of_byte_[static_cast<uint8_t>(bytes[0])] = token;
    }
  }
}

Result<std::unique_ptr<Tokenizer>> BpeTokenizer::create(const GgufFile& file) {
  const Result<std::string> pre = file.get_string("tokenizer.ggml.pre");
  if (!pre) return tl::unexpected<Error>(pre.error());
  Result<PreTokenizer> pre_tokenizer = PreTokenizer::create(*pre);
  if (!pre_tokenizer) return tl::unexpected<Error>(pre_tokenizer.error());
  Result<Vocabulary> vocabulary = Vocabulary::read(file);
  if (!vocabulary) return tl::unexpected<Error>(vocabulary.error());
  auto tokenizer = std::unique_ptr<BpeTokenizer>(new BpeTokenizer(std::move(*vocabulary), std::move(*pre_tokenizer)));
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
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    if (vocabulary_.is_special(token)) continue;
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
    merger_.add_rule(left->second, right->second, merged->second);
  }
  return {};
}

Result<std::vector<TokenId>> BpeTokenizer::encode(std::string_view text, SpecialTokens special) const {
  if (text.size() > text_bytes_max())
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("the text has {} bytes, at most {} are accepted", text.size(), text_bytes_max()));
  if (const size_t valid = valid_utf8_prefix(text); valid < text.size())
    return fail(ErrorCode::kInvalidArgument, fmt::format("the text is not valid UTF-8: byte {} is 0x{:02X}", valid,
                                                         static_cast<uint8_t>(text[valid])));
  Workspace workspace;
  std::vector<TokenId> tokens;
  size_t position = 0;
  while (position < text.size()) {
    std::optional<SpecialTokenMatcher::Found> found;
    if (special == SpecialTokens::kParse) found = special_tokens_.find(text, position);
    const size_t end = found ? found->begin : text.size();
    const Result<void> encoded = encode_ordinary(text.substr(position, end - position), workspace, tokens);
    if (!encoded) return tl::unexpected<Error>(encoded.error());
    if (found) tokens.push_back(found->token);
    position = found ? found->begin + found->length : text.size();
  }
  return tokens;
}

Result<void> BpeTokenizer::encode_ordinary(std::string_view text, Workspace& workspace,
                                           std::vector<TokenId>& tokens) const {
  workspace.words.clear();
  const Result<void> split = pre_tokenizer_.split(text, workspace.words);
  if (!split) return split;
  for (const std::string_view word : workspace.words) {
    workspace.symbols.clear();
    for (const char byte : word)
      if (const TokenId token = token_of_byte_[static_cast<uint8_t>(byte)]; token != kNoToken)
        workspace.symbols.push_back(token);
    merger_.merge(workspace.symbols, workspace.merging, tokens);
  }
  return {};
}

}  // namespace spillway
