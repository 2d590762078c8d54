#include <string>

#include "common/check.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/support/tiny_model.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"
#include "text/utf8.h"

namespace spillway {
namespace {

constexpr TokenId kFirstByteToken = 3;  // of the tiny model: 256 of them, behind the special tokens

const Tokenizer& tokenizer() {
  static const std::unique_ptr<Tokenizer> made = std::move(Tokenizer::from_gguf(make_tiny_model({}).open()).value());
  return *made;
}

std::string spelled(const std::vector<TokenId>& tokens) {
  std::string text;
  for (const TokenId token : tokens) text += tokenizer().token_bytes(token);
  return text;
}

std::string shown(const std::vector<TokenId>& tokens) {
  Detokenizer detokenizer(tokenizer());
  std::string text;
  for (const TokenId token : tokens) {
    text += detokenizer.push(token);
    CHECK(valid_utf8_prefix(text) == text.size());
  }
  text += detokenizer.finish();
  CHECK(valid_utf8_prefix(text) == text.size());
  return text;
}

std::vector<TokenId> byte_by_byte(std::string_view text) {
  std::vector<TokenId> tokens;
  for (const char byte : text) tokens.push_back(kFirstByteToken + static_cast<unsigned char>(byte));
  return tokens;
}

// Valid text, and nothing else, becomes tokens that spell it; it is shown whole, however its bytes were cut.
void check_text(std::string_view text) {
  const bool valid = valid_utf8_prefix(text) == text.size();
  for (const SpecialTokens special : {SpecialTokens::kAsText, SpecialTokens::kParse}) {
    const auto tokens = tokenizer().encode(text, special);
    CHECK(tokens.has_value() == valid);
    if (!tokens) continue;
    CHECK(spelled(*tokens) == text && tokens->size() <= text.size());
    if (special == SpecialTokens::kParse) continue;
    for (const TokenId token : *tokens) CHECK(!tokenizer().is_special(token));
    CHECK(shown(*tokens) == text);
  }
  const std::string one_by_one = shown(byte_by_byte(text));
  if (valid) CHECK(one_by_one == text);
}

// Any ids: what is shown depends on the bytes alone, not on where tokens begin.
void check_ids(std::string_view bytes) {
  std::vector<TokenId> tokens;
  std::string plain;
  for (size_t at = 0; at + 1 < bytes.size(); at += 2) {
    const auto low = static_cast<unsigned char>(bytes[at]), high = static_cast<unsigned char>(bytes[at + 1]);
    tokens.push_back((TokenId{low} | TokenId{high} << 8) % (tokenizer().vocab_size() + 16));  // some beyond the end
    const TokenId token = tokens.back();
    if (token < tokenizer().vocab_size() && !tokenizer().is_special(token)) plain += tokenizer().token_bytes(token);
  }
  CHECK(shown(tokens) == shown(byte_by_byte(plain)));
}

}  // namespace
}  // namespace spillway

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  spillway::check_text(spillway::input_text(data, size));
  spillway::check_ids(spillway::input_text(data, size));
  return 0;
}
