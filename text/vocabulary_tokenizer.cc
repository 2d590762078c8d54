#include "text/vocabulary_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "text/utf8.h"

namespace spillway {
namespace {

Result<void> check_text(std::span<const TextPart> parts) {
  size_t bytes = 0;
  for (const TextPart& part : parts) {
    if (const size_t valid = valid_utf8_prefix(part.text); valid < part.text.size())
      return fail(ErrorCode::kInvalidArgument, fmt::format("the text is not valid UTF-8: byte {} is 0x{:02X}",
                                                           bytes + valid, static_cast<uint8_t>(part.text[valid])));
    bytes += part.text.size();
  }
  if (bytes > Tokenizer::text_bytes_max())
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("the text has {} bytes, at most {} are accepted", bytes, Tokenizer::text_bytes_max()));
  return {};
}

}  // namespace

VocabularyTokenizer::VocabularyTokenizer(Vocabulary vocabulary, SequenceTokens sequence)
    : vocabulary_(std::move(vocabulary)), sequence_(std::move(sequence)) {
  for (TokenId token = 0; token < vocabulary_.size(); ++token) {
    token_bytes_max_ = std::max(token_bytes_max_, vocabulary_.bytes(token).size());
    if (vocabulary_.kind(token) == TokenKind::kUserDefined) user_defined_.add(vocabulary_.bytes(token), token);
    if (vocabulary_.kind(token) == TokenKind::kUserDefined || vocabulary_.is_special(token))
      all_.add(vocabulary_.bytes(token), token);
  }
}

size_t VocabularyTokenizer::tokens_at_least(std::span<const TextPart> parts) const {
  size_t bytes = 0;
  for (const TextPart& part : parts) bytes += covered_bytes(part.text);
  return bytes / token_text_bytes_max() + (bytes % token_text_bytes_max() != 0 ? 1 : 0);
}

Result<std::vector<TokenId>> VocabularyTokenizer::encode_up_to(std::span<const TextPart> parts,
                                                               size_t tokens_max) const {
  if (const Result<void> checked = check_text(parts); !checked) return tl::unexpected<Error>(checked.error());
  Workspace workspace;
  workspace.tokens_max = tokens_max;
  std::vector<TokenId> tokens;
  std::string ordinary;  // text since the last matched token
  const auto flush = [&]() -> Result<void> {
    if (ordinary.empty()) return {};
    const Result<void> encoded = encode_ordinary(ordinary, workspace, tokens);
    ordinary.clear();
    return encoded;
  };
  for (const TextPart& part : parts) {
    const SpecialTokenMatcher& matcher = part.special == SpecialTokens::kParse ? all_ : user_defined_;
    size_t position = 0;
    while (position < part.text.size()) {
      const std::optional<SpecialTokenMatcher::Found> found = matcher.find(part.text, position);
      ordinary += part.text.substr(position, (found ? found->begin : part.text.size()) - position);
      if (!found) break;
      if (const Result<void> flushed = flush(); !flushed) return tl::unexpected<Error>(flushed.error());
      if (tokens.size() > tokens_max) return tokens;
      tokens.push_back(found->token);
      position = found->begin + found->length;
    }
  }
  if (const Result<void> flushed = flush(); !flushed) return tl::unexpected<Error>(flushed.error());
  return tokens;
}

}  // namespace spillway
