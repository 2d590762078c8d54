#include "text/detokenizer.h"

#include <gtest/gtest.h>

#include <random>

#include "tests/text/demo_tokenizer.h"
#include "text/utf8.h"

namespace spillway {
namespace {

using Ids = std::vector<TokenId>;

// Tokens are the 256 bytes, then pieces of several bytes, then one special token.
class ByteTokenizer final : public Tokenizer {
 public:
  explicit ByteTokenizer(std::vector<std::string> pieces) {
    for (int byte = 0; byte < 256; ++byte) bytes_.emplace_back(1, static_cast<char>(byte));
    bytes_.insert(bytes_.end(), pieces.begin(), pieces.end());
    bytes_.emplace_back("<special>");
  }
  Result<Ids> encode_up_to(std::span<const TextPart> parts, size_t) const override {
    Ids ids;
    for (const TextPart& part : parts)
      for (const char byte : part.text) ids.push_back(static_cast<uint8_t>(byte));
    return ids;
  }
  size_t tokens_at_least(std::span<const TextPart>) const override { return 0; }
  std::string_view token_bytes(TokenId token) const override { return bytes_.at(token); }
  bool is_special(TokenId token) const override { return token + 1 == bytes_.size(); }
  uint32_t vocab_size() const override { return static_cast<uint32_t>(bytes_.size()); }
  TokenId end_of_sequence() const override { return vocab_size() - 1; }
  std::optional<TokenId> begin_of_sequence() const override { return std::nullopt; }
  bool adds_begin_of_sequence() const override { return false; }
  std::span<const TokenId> end_of_generation() const override { return {}; }

 private:
  std::vector<std::string> bytes_;
};

std::string streamed(const Tokenizer& tokenizer, const Ids& ids) {
  Detokenizer detokenizer(tokenizer);
  std::string text;
  for (const TokenId id : ids) {
    const std::string piece = detokenizer.push(id);
    EXPECT_EQ(valid_utf8_prefix(piece), piece.size()) << "a character was split";
    text += piece;
  }
  return text + detokenizer.finish();
}

TEST(Detokenizer, GoldenTokensOneByOneGiveTheText) {
  const nlohmann::json goldens = read_test_data("tokenizer.json");
  for (const auto& golden : goldens["cases"])
    EXPECT_EQ(streamed(demo_tokenizer(), golden["ids"].get<Ids>()), golden["text"].get<std::string>());
}

TEST(Detokenizer, AnIdBeyondTheVocabularyHasNoText) {
  const ByteTokenizer tokenizer({});
  EXPECT_EQ(streamed(tokenizer, {'a', tokenizer.vocab_size(), 0xFFFFFFFFu, 'b'}), "ab");
}

TEST(Detokenizer, ACompleteCharacterNeverWaits) {
  const ByteTokenizer tokenizer({});
  const nlohmann::json goldens = read_test_data("tokenizer.json");
  for (const auto& golden : goldens["cases"]) {
    const auto text = golden["text"].get<std::string>();
    Detokenizer detokenizer(tokenizer);
    std::string seen;
    for (size_t index = 0; index < text.size(); ++index) {
      seen += detokenizer.push(static_cast<uint8_t>(text[index]));
      EXPECT_EQ(seen, text.substr(0, valid_utf8_prefix(text.substr(0, index + 1))));
    }
    EXPECT_EQ(detokenizer.finish(), "");
  }
}

TEST(Detokenizer, SpecialTokensGiveNoTextAndDoNotDisturbWhatWaits) {
  const ByteTokenizer tokenizer({});
  const TokenId special = tokenizer.end_of_sequence();
  EXPECT_EQ(streamed(tokenizer, {special, 'a', special}), "a");
  EXPECT_EQ(streamed(tokenizer, {0xC3, special, 0xA9}), "\xC3\xA9");
}

TEST(Detokenizer, InvalidBytesBecomeReplacementCharacters) {
  const ByteTokenizer tokenizer({});
  const auto text = [&](std::string_view bytes) {
    return streamed(tokenizer, tokenizer.encode(bytes, SpecialTokens::kAsText).value());
  };
  const std::string r = "\xEF\xBF\xBD";
  EXPECT_EQ(text("a\xFF"
                 "b"),
            "a" + r + "b");
  EXPECT_EQ(text("\xE2\x82"
                 "b"),
            r + "b");                          // cut short by another character
  EXPECT_EQ(text("\xF0\x9F\x98"), r);          // cut short by the end
  EXPECT_EQ(text("\xED\xA0\x80"), r + r + r);  // a surrogate
  EXPECT_EQ(text("\xF0\x9F\xE2\x82\xAC"), r + "\xE2\x82\xAC");
  EXPECT_EQ(text("\x80\x80"), r + r);
}

TEST(Detokenizer, FinishBeginsAnew) {
  const ByteTokenizer tokenizer({});
  Detokenizer detokenizer(tokenizer);
  EXPECT_EQ(detokenizer.push(0xE2), "");
  EXPECT_EQ(detokenizer.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(detokenizer.finish(), "");
  EXPECT_EQ(detokenizer.push('x'), "x");
}

TEST(Detokenizer, TheTextDoesNotDependOnTheCutIntoTokens) {
  std::mt19937 random(3);
  for (int round = 0; round < 500; ++round) {
    std::string bytes;  // valid characters and noise
    for (int count = 0; count < 20; ++count) {
      if (random() % 3 == 0) {
        bytes += static_cast<char>(random());
      } else {
        append_utf8(bytes, random() % 0xD800);
      }
    }
    std::vector<std::string> pieces;
    Ids cut;
    for (size_t at = 0; at < bytes.size();) {
      const size_t length = std::min<size_t>(1 + random() % 7, bytes.size() - at);
      cut.push_back(static_cast<TokenId>(256 + pieces.size()));
      pieces.push_back(bytes.substr(at, length));
      at += length;
    }
    const ByteTokenizer tokenizer(pieces);
    EXPECT_EQ(streamed(tokenizer, cut), streamed(tokenizer, tokenizer.encode(bytes, SpecialTokens::kAsText).value()));
  }
}

}  // namespace
}  // namespace spillway
