#include "text/vocabulary.h"

#include <fmt/format.h>

#include <optional>

#include "common/check.h"
#include "common/quote.h"
#include "text/byte_alphabet.h"
#include "text/special_token_matcher.h"
#include "text/utf8.h"

namespace spillway {
namespace {

constexpr size_t kTokensMax = size_t{1} << 20;
constexpr size_t kBytesMax = size_t{1} << 28;  // of all tokens together; offsets are 32 bits
constexpr int64_t kNormal = 1, kControl = 3;   // llama.cpp's token types

Result<TokenId> read_id(const GgufFile& file, std::string_view key, uint32_t vocab_size) {
  const Result<uint64_t> id = file.get_uint(key);
  if (!id) return tl::unexpected<Error>(id.error());
  if (*id >= vocab_size)
    return fail(ErrorCode::kCorrupt, fmt::format("{} is {}, the vocabulary has {} tokens", key, *id, vocab_size));
  return static_cast<TokenId>(*id);
}

// A token id is an index into the embedding table, so the table must be at least as long.
Result<void> check_embedding(const GgufFile& file, size_t token_count) {
  const Result<const GgufTensor*> embedding = file.tensor("token_embd.weight");
  if (!embedding || (*embedding)->shape.size() != 2 || token_count <= (*embedding)->shape[1]) return {};
  return fail(ErrorCode::kCorrupt, fmt::format("tokenizer.ggml.tokens has {} tokens, token_embd.weight {} rows",
                                               token_count, (*embedding)->shape[1]));
}

}  // namespace

Result<Vocabulary> Vocabulary::read(const GgufFile& file) {
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
    if (const Result<void> added = vocabulary.add((**tokens)[index], (**types)[index]); !added)
      return tl::unexpected<Error>(added.error());
  const Result<TokenId> end = read_id(file, "tokenizer.ggml.eos_token_id", vocabulary.size());
  if (!end) return tl::unexpected<Error>(end.error());
  const Result<TokenId> begin = read_id(file, "tokenizer.ggml.bos_token_id", vocabulary.size());
  if (!begin) return tl::unexpected<Error>(begin.error());
  vocabulary.end_of_sequence_ = *end;
  vocabulary.begin_of_sequence_ = *begin;
  return vocabulary;
}

Result<void> Vocabulary::add(const std::string& written, int64_t type) {
  const size_t token = is_special_.size();
  if (type != kNormal && type != kControl)
    return fail(ErrorCode::kUnsupported,
                fmt::format("token {} has type {}; supported are 1 (normal) and 3 (control)", token, type));
  if (type == kControl && (written.empty() || written.size() > SpecialTokenMatcher::kTokenBytesMax))
    return fail(ErrorCode::kUnsupported, fmt::format("control token {} has {} bytes; supported are 1 to {}", token,
                                                     written.size(), SpecialTokenMatcher::kTokenBytesMax));
  if (type == kControl && valid_utf8_prefix(written) != written.size())  // the text around it is matched as UTF-8
    return fail(ErrorCode::kUnsupported,
                fmt::format("control token {} is not UTF-8: {}", token, quote_foreign(written)));
  const std::optional<std::string> bytes = type == kControl ? written : bytes_from_alphabet(written);
  if (!bytes || (type == kNormal && bytes->empty()))
    return fail(ErrorCode::kCorrupt, fmt::format("token {} is {}, which is not text of the byte-level alphabet", token,
                                                 quote_foreign(written)));
  if (bytes->size() > kBytesMax - bytes_.size())
    return fail(ErrorCode::kUnsupported, fmt::format("tokens of more than {} bytes together", kBytesMax));
  bytes_ += *bytes;
  ends_.push_back(static_cast<uint32_t>(bytes_.size()));
  is_special_.push_back(type == kControl);
  return {};
}

std::string_view Vocabulary::bytes(TokenId token) const {
  CHECK(token < ends_.size());
  const uint32_t begin = token == 0 ? 0 : ends_[token - 1];
  return std::string_view(bytes_).substr(begin, ends_[token] - begin);
}

bool Vocabulary::is_special(TokenId token) const {
  CHECK(token < is_special_.size());
  return is_special_[token];
}

}  // namespace spillway
