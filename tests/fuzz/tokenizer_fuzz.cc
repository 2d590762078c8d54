#include <algorithm>
#include <string>

#include "common/check.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/spm_vocabulary.h"
#include "tests/support/tiny_model.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

// One text, or list of ids, for a byte-level tokeniser and for a SentencePiece one.
namespace spillway {
namespace {

constexpr TokenId kFirstByteToken = 3;  // of the tiny model: 256 of them, behind the special tokens

const Tokenizer& byte_level() {
  static const std::unique_ptr<Tokenizer> made = std::move(Tokenizer::from_gguf(make_tiny_model({}).open()).value());
  return *made;
}

const Tokenizer& sentence_piece() {
  static const std::unique_ptr<Tokenizer> made = [] {
    const GgufFile file = std::move(GgufFile::from_bytes(SpmVocabulary().writer().bytes()).value());
    return std::move(Tokenizer::from_gguf(file).value());
  }();
  return *made;
}

std::string spelled(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens) {
  std::string text;
  for (const TokenId token : tokens) text += tokenizer.token_bytes(token);
  return text;
}

std::string shown(const Tokenizer& tokenizer, const std::vector<TokenId>& tokens) {
  Detokenizer detokenizer(tokenizer);
  std::string text;
  for (const TokenId token : tokens) {
    text += detokenizer.push(token);
    CHECK(valid_utf8_prefix(text) == text.size());
  }
  text += detokenizer.finish();
  CHECK(valid_utf8_prefix(text) == text.size());
  return text;
}

std::vector<TokenId> byte_by_byte(std::string_view text, TokenId first) {
  std::vector<TokenId> tokens;
  for (const char byte : text) tokens.push_back(first + static_cast<unsigned char>(byte));
  return tokens;
}

// Valid text, and nothing else, becomes tokens that spell it; it is shown whole, however its bytes were cut.
void check_text(std::string_view text) {
  const bool valid = valid_utf8_prefix(text) == text.size();
  const Tokenizer& tokenizer = byte_level();
  for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    const auto tokens = tokenizer.encode(text, special);
    CHECK(tokens.has_value() == valid);
    if (!tokens) continue;
    CHECK(spelled(tokenizer, *tokens) == text && tokens->size() <= text.size());
    if (special == SpecialTokens::kParse) continue;
    for (const TokenId token : *tokens) CHECK(!tokenizer.is_special(token));
    CHECK(shown(tokenizer, *tokens) == text);
  }
  const std::string one_by_one = shown(tokenizer, byte_by_byte(text, kFirstByteToken));
  if (valid) CHECK(one_by_one == text);
}

std::string without_spaces(std::string_view text) {
  constexpr std::string_view kWritten = "\xE2\x96\x81";  // how pieces write a space
  std::string rest;
  while (!text.empty()) {
    const size_t skipped = text[0] == ' ' ? 1 : text.starts_with(kWritten) ? kWritten.size() : 0;
    if (skipped == 0) rest += text[0];
    text.remove_prefix(std::max<size_t>(skipped, 1));
  }
  return rest;
}

// Pieces spell the text but for spaces, which they put in front. Parts of it are the same text.
void check_pieces(std::string_view text) {
  const Tokenizer& tokenizer = sentence_piece();
  for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    const auto tokens = tokenizer.encode(text, special);
    CHECK(tokens.has_value() == (valid_utf8_prefix(text) == text.size()));
    if (!tokens) continue;
    CHECK(without_spaces(spelled(tokenizer, *tokens)) == without_spaces(text) && tokens->size() <= 2 * text.size() + 3);
    if (special == SpecialTokens::kParse) continue;
    for (const TokenId token : *tokens) CHECK(!tokenizer.is_special(token) && token != SpmVocabulary::kUnused);
    CHECK(without_spaces(shown(tokenizer, *tokens)) == without_spaces(text));
    if (text.find("<tool>") != std::string_view::npos) continue;  // a cut through it makes it other text
    const size_t half = valid_utf8_prefix(text.substr(0, text.size() / 2));
    const TextPart parts[] = {{text.substr(0, half), special}, {text.substr(half), special}};
    CHECK(tokenizer.encode_parts(parts) == *tokens);
    CHECK(tokenizer.tokens_at_least(parts) <= tokens->size());
  }
}

// Any ids: what is shown depends on the bytes alone, not on where tokens begin.
void check_ids(const Tokenizer& tokenizer, TokenId first_byte, std::string_view bytes) {
  std::vector<TokenId> tokens;
  std::string plain;
  for (size_t at = 0; at + 1 < bytes.size(); at += 2) {
    const auto low = static_cast<unsigned char>(bytes[at]), high = static_cast<unsigned char>(bytes[at + 1]);
    tokens.push_back((TokenId{low} | TokenId{high} << 8) % (tokenizer.vocab_size() + 16));  // some beyond the end
    const TokenId token = tokens.back();
    if (token < tokenizer.vocab_size() && !tokenizer.is_special(token)) plain += tokenizer.token_bytes(token);
  }
  CHECK(shown(tokenizer, tokens) == shown(tokenizer, byte_by_byte(plain, first_byte)));
}

}  // namespace
}  // namespace spillway

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace spillway;
  const std::string_view input = input_text(data, size);
  check_text(input);
  check_pieces(input);
  check_ids(byte_level(), kFirstByteToken, input);
  check_ids(sentence_piece(), SpmVocabulary::kFirstByte, input);
  return 0;
}
