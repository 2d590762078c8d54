#include "text/vocabulary.h"

#include <fmt/format.h>

#include <optional>

#include "common/check.h"
#include "common/quote.h"
#include "text/byte_alphabet.h"
#include "text/sequence_tokens.h"
#include "text/special_token_matcher.h"
#include "text/utf8.h"

namespace spillway {
namespace {

constexpr size_t kTokensMax = size_t{1} << 20;
constexpr size_t kBytesMax = size_t{1} << 28;  // of all tokens together; offsets are 32 bits

// A token id is an index into the embedding table, so the table must be at least as long.
Result<void> check_embedding(const GgufFile& file, size_t token_count) {
  const Result<const GgufTensor*> embedding = file.tensor("token_embd.weight");
  if (!embedding || (*embedding)->shape.size() != 2 || token_count <= (*embedding)->shape[1]) return {};
  return fail(ErrorCode::kCorrupt, fmt::format("tokenizer.ggml.tokens has {} tokens, token_embd.weight {} rows",
                                               token_count, (*embedding)->shape[1]));
}

bool is_kind(int64_t type, TokenSpelling spelling) {
  return type >= static_cast<int64_t>(TokenKind::kNormal) &&
         type <=
             static_cast<int64_t>(spelling == TokenSpelling::kSentencePiece ? TokenKind::kByte : TokenKind::kUnused);
}

// SentencePiece writes a space as U+2581.
std::optional<std::string> bytes_from_piece(std::string_view written) {
  constexpr std::string_view kSpace = "\xE2\x96\x81";
  if (valid_utf8_prefix(written) != written.size()) return std::nullopt;
  std::string bytes;
  while (!written.empty()) {
    const bool is_space = written.starts_with(kSpace);
    bytes += is_space ? ' ' : written[0];
    written.remove_prefix(is_space ? kSpace.size() : 1);
  }
  return bytes;
}

// <0xNN>
std::optional<std::string> bytes_from_byte_token(std::string_view written) {
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  if (written.size() != 6 || !written.starts_with("<0x") || written[5] != '>') return std::nullopt;
  const size_t high = kDigits.find(written[3]), low = kDigits.find(written[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return std::string(1, static_cast<char>(high * 16 + low));
}

std::optional<std::string> spelled_bytes(TokenKind kind, const std::string& written, TokenSpelling spelling) {
  switch (kind) {
    case TokenKind::kNormal:
      return spelling == TokenSpelling::kSentencePiece ? bytes_from_piece(written) : bytes_from_alphabet(written);
    case TokenKind::kByte: return bytes_from_byte_token(written);
    case TokenKind::kUnused: return std::string();
    case TokenKind::kUnknown:
    case TokenKind::kControl:
    case TokenKind::kUserDefined: return written;
  }
  return std::nullopt;
}

std::string_view kind_name(TokenKind kind) {
  switch (kind) {
    case TokenKind::kNormal: return "normal";
    case TokenKind::kUnknown: return "unknown";
    case TokenKind::kControl: return "control";
    case TokenKind::kUserDefined: return "user-defined";
    case TokenKind::kUnused: return "unused";
    case TokenKind::kByte: return "byte";
  }
  return "";
}

}  // namespace

Result<Vocabulary> Vocabulary::read(const GgufFile& file, TokenSpelling spelling) {
  const Result<const std::vector<std::string>*> tokens = file.get_strings("tokenizer.ggml.tokens");
  if (!tokens) return tl::unexpected<Error>(tokens.error());
  const Result<const std::vector<int64_t>*> types = file.get_ints("tokenizer.ggml.token_type");
  if (!types) return tl::unexpected<Error>(types.error());
  const size_t count = (*tokens)->size();
  if (count == 0 || count > kTokensMax)
    return fail(ErrorCode::kUnsupported, fmt::format("{} tokens; supported are 1 to {}", count, kTokensMax));
  if ((*types)->size() != count)
    return fail(ErrorCode::kCorrupt, fmt::format("tokenizer.ggml.tokens has {} items, tokenizer.ggml.token_type {}",
                                                 count, (*types)->size()));
  if (const Result<void> fits = check_embedding(file, count); !fits) return tl::unexpected<Error>(fits.error());
  Vocabulary vocabulary;
  for (size_t index = 0; index < count; ++index)
    if (const Result<void> added = vocabulary.add((**tokens)[index], (**types)[index], spelling); !added)
      return tl::unexpected<Error>(added.error());
  return vocabulary;
}

Result<void> Vocabulary::add(const std::string& written, int64_t type, TokenSpelling spelling) {
  const size_t token = kinds_.size();
  if (!is_kind(type, spelling))
    return fail(ErrorCode::kUnsupported,
                fmt::format("token {} has type {}; supported are 1 (normal) to {}", token, type,
                            spelling == TokenSpelling::kSentencePiece ? "6 (byte)" : "5 (unused)"));
  auto kind = static_cast<TokenKind>(type);
  if (kind == TokenKind::kUserDefined && is_end_of_generation(written)) kind = TokenKind::kControl;
  const bool is_matched = kind == TokenKind::kControl || kind == TokenKind::kUnknown || kind == TokenKind::kUserDefined;
  if (is_matched && (written.empty() || written.size() > SpecialTokenMatcher::kTokenBytesMax))
    return fail(ErrorCode::kUnsupported, fmt::format("{} token {} has {} bytes; supported are 1 to {}", kind_name(kind),
                                                     token, written.size(), SpecialTokenMatcher::kTokenBytesMax));
  if (is_matched && valid_utf8_prefix(written) != written.size())  // the text around it is matched as UTF-8
    return fail(ErrorCode::kUnsupported,
                fmt::format("{} token {} is not UTF-8: {}", kind_name(kind), token, quote_foreign(written)));
  const std::optional<std::string> bytes = spelled_bytes(kind, written, spelling);
  if (!bytes || (kind == TokenKind::kNormal && bytes->empty()))
    return fail(ErrorCode::kCorrupt,
                fmt::format("{} token {} is {}, which is not {}", kind_name(kind), token, quote_foreign(written),
                            kind == TokenKind::kByte                    ? "<0x00> to <0xFF>"
                            : spelling == TokenSpelling::kSentencePiece ? "text"
                                                                        : "text of the byte-level alphabet"));
  if (bytes->size() > kBytesMax - bytes_.size())
    return fail(ErrorCode::kUnsupported, fmt::format("tokens of more than {} bytes together", kBytesMax));
  bytes_ += *bytes;
  ends_.push_back(static_cast<uint32_t>(bytes_.size()));
  kinds_.push_back(kind);
  return {};
}

std::string_view Vocabulary::bytes(TokenId token) const {
  CHECK(token < ends_.size());
  const uint32_t begin = token == 0 ? 0 : ends_[token - 1];
  return std::string_view(bytes_).substr(begin, ends_[token] - begin);
}

TokenKind Vocabulary::kind(TokenId token) const {
  CHECK(token < kinds_.size());
  return kinds_[token];
}

}  // namespace spillway
