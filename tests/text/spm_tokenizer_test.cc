#include "text/spm_tokenizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <random>

#include "tests/support/spm_vocabulary.h"
#include "tests/text/demo_tokenizer.h"
#include "text/detokenizer.h"
#include "text/utf8.h"

namespace spillway {
namespace {

using Ids = std::vector<TokenId>;

Result<std::unique_ptr<Tokenizer>> read(const GgufWriter& writer) {
  const Result<GgufFile> file = GgufFile::from_bytes(writer.bytes());
  if (!file) throw std::runtime_error(file.error().detail);
  return Tokenizer::from_gguf(*file);
}

std::unique_ptr<Tokenizer> made(const GgufWriter& writer) { return std::move(read(writer).value()); }

const SpmVocabulary& vocabulary() {
  static const SpmVocabulary made_once;
  return made_once;
}

Ids ids_of(std::initializer_list<std::string_view> pieces) {
  Ids ids;
  for (const std::string_view piece : pieces) ids.push_back(vocabulary().id(piece));
  return ids;
}

std::string spelled(const Tokenizer& tokenizer, const Ids& ids) {
  std::string text;
  for (const TokenId id : ids) text += tokenizer.token_bytes(id);
  return text;
}

TEST(SpmTokenizer, TheHighestScoreMergesFirstAndOfEqualOnesTheLeftmost) {
  const auto tokenizer = made(vocabulary().writer().add("tokenizer.ggml.add_space_prefix", false));
  const auto ids = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kAsText).value(); };
  EXPECT_EQ(ids("abc"), ids_of({"abc"}));      // ab and bc score the same: ab, then abc
  EXPECT_EQ(ids("aab"), ids_of({"a", "ab"}));  // ab before aa, which would leave b
  EXPECT_EQ(ids("aaaaa"), ids_of({"aaaa", "a"}));
  EXPECT_EQ(ids("bcb"), ids_of({"bc", "b"}));  // written like the unused token
  EXPECT_EQ(ids("    "), ids_of({"▁▁▁▁"}));
  EXPECT_EQ(ids("ca b"), ids_of({"c", "a▁", "b"}));  // "ca▁b" cannot be reached
}

TEST(SpmTokenizer, ASpaceGoesInFrontOfTextAndBehindMatchedTokens) {
  const auto tokenizer = made(vocabulary().writer());
  const auto ids = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kParse).value(); };
  EXPECT_EQ(ids(""), Ids{});
  EXPECT_EQ(ids("abc"), ids_of({"▁abc"}));
  EXPECT_EQ(ids(" abc"), ids_of({"▁", "▁abc"}));
  EXPECT_EQ(ids("<s>abc</s>"), ids_of({"<s>", "▁abc", "</s>"}));
  EXPECT_EQ(ids("a<tool>b"), ids_of({"▁a", "<tool>", "▁", "b"}));
}

TEST(SpmTokenizer, ABoundOnTokensEndsTheWorkBehindItAndBytesTellHowFewThereMayBe) {
  const auto tokenizer = made(vocabulary().writer());
  const auto least = [&](std::string_view text) {
    const TextPart part{text, SpecialTokens::kParse};
    return tokenizer->tokens_at_least({&part, 1});
  };
  const auto ids = [&](std::string_view text, size_t tokens_max) {
    const TextPart part{text, SpecialTokens::kParse};
    return tokenizer->encode_up_to({&part, 1}, tokens_max).value();
  };
  std::string text;
  for (int i = 0; i < 10000; ++i) text += "abc Z";
  const Ids all = ids(text, Tokenizer::kNoLimit), first = ids(text, 10);
  EXPECT_EQ(ids(text, all.size()), all);
  ASSERT_GT(first.size(), 10u);
  ASSERT_LT(first.size(), 20u);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), all.begin()));
  EXPECT_GT(least(text), 1000u);
  std::string spaces;  // written so, a text may have three bytes for each space of a token
  for (int i = 0; i < 4000; ++i) spaces += "▁";
  for (const std::string& one : {text, spaces, std::string(4000, ' '), std::string("<tool><tool><s>")})
    EXPECT_LE(least(one), ids(one, Tokenizer::kNoLimit).size());
}

TEST(SpmTokenizer, ControlTokensAreTextUnlessParsedAndUserDefinedOnesNever) {
  const auto tokenizer = made(vocabulary().writer().add("tokenizer.ggml.add_space_prefix", false));
  const auto ids = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kAsText).value(); };
  EXPECT_EQ(ids("<s>"), ids_of({"<s", ">"}));  // never control token 1, though its text is spelled
  EXPECT_EQ(ids("<tool>"), ids_of({"<tool>"}));
  EXPECT_EQ(tokenizer->encode("<s><unk>", SpecialTokens::kParse).value(), ids_of({"<s>", "<unk>"}));
  for (const auto& [piece, special] : std::map<std::string_view, bool>{
           {"<unk>", true}, {"<s>", true}, {"</s>", true}, {"<tool>", false}, {"bcb", false}, {"<0x41>", false}})
    EXPECT_EQ(tokenizer->is_special(vocabulary().id(piece)), special) << piece;
}

TEST(SpmTokenizer, WhatIsNoPieceBecomesItsBytes) {
  const auto tokenizer = made(vocabulary().writer().add("tokenizer.ggml.add_space_prefix", false));
  const auto ids = [&](std::string_view text) { return tokenizer->encode(text, SpecialTokens::kAsText).value(); };
  EXPECT_EQ(ids("aZb"), ids_of({"a", "<0x5A>", "b"}));
  EXPECT_EQ(ids("日a"), ids_of({"日a"}));  // a piece that begins with a character which is none
  EXPECT_EQ(ids("日b"), ids_of({"<0xE6>", "<0x97>", "<0xA5>", "b"}));
  EXPECT_EQ(ids("<0x41>"), ids_of({"<", "<0x30>", "<0x78>", "<0x34>", "<0x31>", ">"}));  // no byte token by its name
  EXPECT_EQ(std::string(1, '\0'), spelled(*tokenizer, ids(std::string_view("\0", 1))));
}

TEST(SpmTokenizer, WithoutByteTokensARunOfUnknownCharactersIsOneUnknownToken) {
  SpmVocabulary small;
  for (size_t token = SpmVocabulary::kFirstByte; token < SpmVocabulary::kFirstPiece; ++token) small.types[token] = 5;
  const auto tokenizer = made(small.writer());
  EXPECT_EQ(tokenizer->encode("aXYb", SpecialTokens::kAsText).value(),
            (Ids{small.id("▁a"), SpmVocabulary::kUnknown, small.id("b")}));
  const std::string unknown(10000, 'X');
  const TextPart part{unknown, SpecialTokens::kAsText};
  EXPECT_EQ(tokenizer->encode_parts({&part, 1}).value().size(), 2u);
  EXPECT_EQ(tokenizer->tokens_at_least({&part, 1}), 0u);
  small.types[SpmVocabulary::kUnknown] = 3;
  const auto refused = read(small.writer());
  ASSERT_FALSE(refused);
  EXPECT_NE(refused.error().detail.find("neither byte tokens nor an unknown token"), std::string::npos);
}

// The definition, on the text itself: again and again the leftmost of the neighbours that spell the piece of the
// highest score.
Ids by_definition(const SpmVocabulary& pieces, std::string_view text) {
  std::map<std::string, size_t> known;
  for (size_t token = SpmVocabulary::kFirstPiece; token < pieces.tokens.size(); ++token)
    known[pieces.tokens[token]] = token;
  std::vector<std::string> symbols{"▁"};
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(next_utf8(rest).length))
    symbols.emplace_back(rest[0] == ' ' ? "▁" : rest.substr(0, next_utf8(rest).length));
  for (;;) {
    size_t best = symbols.size();
    float best_score = -std::numeric_limits<float>::infinity();
    for (size_t at = 0; at + 1 < symbols.size(); ++at)
      if (const auto found = known.find(symbols[at] + symbols[at + 1]);
          found != known.end() && pieces.scores[found->second] > best_score)
        best = at, best_score = pieces.scores[found->second];
    if (best == symbols.size()) break;
    symbols[best] += symbols[best + 1];
    symbols.erase(symbols.begin() + static_cast<long>(best) + 1);
  }
  Ids ids;
  for (const std::string& symbol : symbols) {
    if (const auto found = known.find(symbol); found != known.end()) {
      ids.push_back(static_cast<TokenId>(found->second));
    } else {
      for (const char byte : symbol) ids.push_back(SpmVocabulary::kFirstByte + static_cast<uint8_t>(byte));
    }
  }
  return ids;
}

TEST(SpmTokenizer, RandomVocabulariesAndTextsMergeAsTheDefinitionDoes) {
  std::mt19937 random(7);
  const std::string_view alphabet[] = {"a", "b", "c", "▁", "é", "日", "d"};
  for (int round = 0; round < 100; ++round) {
    SpmVocabulary pieces;
    pieces.tokens.resize(SpmVocabulary::kFirstPiece);
    pieces.scores.resize(SpmVocabulary::kFirstPiece);
    pieces.types.resize(SpmVocabulary::kFirstPiece);
    for (int count = 0; count < 40; ++count) {
      std::string piece;
      for (uint32_t length = 1 + random() % 5; length > 0; --length) piece += alphabet[random() % 6];
      if (std::ranges::count(pieces.tokens, piece) > 0) continue;
      pieces.tokens.push_back(piece);
      pieces.scores.push_back(-static_cast<float>(random() % 8));  // many equal ones
      pieces.types.push_back(1);
    }
    const auto tokenizer = made(pieces.writer());
    for (int count = 0; count < 50; ++count) {
      std::string text;
      for (uint32_t length = 1 + random() % 30; length > 0; --length) {
        const std::string_view drawn = alphabet[random() % 7];
        text += drawn == "▁" ? " " : drawn;
      }
      ASSERT_EQ(tokenizer->encode(text, SpecialTokens::kAsText).value(), by_definition(pieces, text)) << text;
    }
  }
}

TEST(SpmTokenizer, MetadataThatContradictsItselfIsRefusedByName) {
  const auto refused = [](auto spoil, ErrorCode code, std::string_view part) {
    SpmVocabulary spoiled;
    spoil(spoiled);
    const auto tokenizer = read(spoiled.writer());
    ASSERT_FALSE(tokenizer) << part;
    EXPECT_EQ(tokenizer.error().code, code) << tokenizer.error().detail;
    EXPECT_NE(tokenizer.error().detail.find(part), std::string::npos) << tokenizer.error().detail;
  };
  using V = SpmVocabulary;
  const size_t piece = V::kFirstPiece + 3;
  refused([](V& v) { v.scores[7] = std::nanf(""); }, ErrorCode::kCorrupt, "score of token 7 is not a number");
  refused([](V& v) { v.scores.pop_back(); }, ErrorCode::kCorrupt, "tokenizer.ggml.scores 282");
  refused([](V& v) { v.tokens[V::kFirstByte] = "<0x01>"; }, ErrorCode::kCorrupt, "token 6 is there twice");
  refused([](V& v) { v.tokens[V::kFirstByte] = "<0xaf>"; }, ErrorCode::kCorrupt, "<0x00> to <0xFF>");
  refused([](V& v) { v.types[V::kFirstByte] = 1; }, ErrorCode::kCorrupt, "255 byte tokens: either all 256 or none");
  refused([&](V& v) { v.tokens[piece] = "a"; }, ErrorCode::kCorrupt, "is there twice");
  refused([&](V& v) { v.tokens[piece] = ""; }, ErrorCode::kCorrupt, "normal token 264");
  refused([&](V& v) { v.tokens[piece] = "\xE2\x96"; }, ErrorCode::kCorrupt, "which is not text");
  refused([&](V& v) { v.tokens[piece] = std::string(257, 'x'); }, ErrorCode::kUnsupported, "more than 256 bytes");
  refused([&](V& v) { v.types[piece] = 7; }, ErrorCode::kUnsupported, "has type 7");
  refused([](V& v) { v.tokens[V::kUserDefined] = ""; }, ErrorCode::kUnsupported, "user-defined token 3 has 0 bytes");
  GgufWriter without_scores;
  without_scores.add("tokenizer.ggml.model", "llama").add_array("tokenizer.ggml.tokens", vocabulary().tokens);
  without_scores.add_array("tokenizer.ggml.token_type", vocabulary().types);
  without_scores.add("tokenizer.ggml.bos_token_id", uint32_t{1}).add("tokenizer.ggml.eos_token_id", uint32_t{2});
  EXPECT_NE(read(without_scores).error().detail.find("tokenizer.ggml.scores"), std::string::npos);
  SpmVocabulary infinite;
  infinite.scores[piece] = -std::numeric_limits<float>::infinity();
  EXPECT_TRUE(read(infinite.writer()));
}

// Pieces of 2, 4, 8, ... a and spaces, and every length of b: merges that go on over the whole text. Quadratic work
// would take hours.
TEST(SpmTokenizer, ALongRunOfAnythingEndsInSeconds) {
  SpmVocabulary runs;
  const auto add = [&](const std::string& piece) {
    if (std::ranges::count(runs.tokens, piece) > 0) return;
    runs.tokens.push_back(piece);
    runs.scores.push_back(-static_cast<float>(runs.tokens.size()));
    runs.types.push_back(1);
  };
  std::string spaces = "▁▁", letters = "aa";
  for (int doubling = 0; doubling < 6; ++doubling) add(spaces), add(letters), spaces += spaces, letters += letters;
  for (size_t length = 2; length <= SpmTokenizer::kPieceBytesMax; ++length) add(std::string(length, 'b'));
  const auto tokenizer = made(runs.writer());
  for (const std::string_view unit : {"a", " ", "b", "ab", "\n", "Z", "日", "<", "<s", "<tool", "<s>", "ca "}) {
    std::string text;
    while (text.size() < size_t{512} << 10) text += unit;
    const double begin = cpu_seconds();
    const Ids ids = tokenizer->encode(text, SpecialTokens::kAsText).value();
    EXPECT_LT(cpu_seconds() - begin, 10.0) << unit;
    EXPECT_EQ(spelled(*tokenizer, ids), " " + text) << unit;
  }
}

}  // namespace
}  // namespace spillway
