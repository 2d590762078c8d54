#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

using Words = std::vector<std::string_view>;

Words split(std::string_view text) {
  static const PreTokenizer pre_tokenizer = std::move(PreTokenizer::create("smollm").value());
  Words words;
  EXPECT_TRUE(pre_tokenizer.split(text, words));
  return words;
}

TEST(PreTokenizer, WordsTakeTheSpaceBeforeThem) {
  EXPECT_EQ(split("Hello, my world!"), (Words{"Hello", ",", " my", " world", "!"}));
  EXPECT_EQ(split("a  b"), (Words{"a", " ", " b"}));
  EXPECT_EQ(split("a \n b\n"), (Words{"a", " \n", " b", "\n"}));
  EXPECT_EQ(split("it's they'll 'tis don'T"), (Words{"it", "'s", " they", "'ll", " '", "tis", " don", "'", "T"}));
}

TEST(PreTokenizer, EveryDigitStandsAloneAndEndsTheTextBeforeIt) {
  EXPECT_EQ(split("12"), (Words{"1", "2"}));
  EXPECT_EQ(split("a 1"), (Words{"a", " ", "1"}));
  EXPECT_EQ(split("a   1  b"), (Words{"a", "   ", "1", " ", " b"}));
  EXPECT_EQ(split("x\xC2\xBD\xEF\xBC\x92"), (Words{"x", "\xC2\xBD", "\xEF\xBC\x92"}));  // one half, full-width 2
}

TEST(PreTokenizer, WhiteSpaceIsUnicodesAndNothingElse) {
  EXPECT_EQ(split("a\xE3\x80\x80\xE3\x80\x80"
                  "b"),
            (Words{"a", "\xE3\x80\x80", "\xE3\x80\x80", "b"}));
  EXPECT_EQ(split("a\xC2\x85"), (Words{"a", "\xC2\x85"}));
  EXPECT_EQ(split("! \xE1\xA0\x8E!"), (Words{"!", " \xE1\xA0\x8E!"}));  // U+180E is a symbol: it goes with the next
}

TEST(PreTokenizer, AnotherNameIsRefused) {
  const Result<PreTokenizer> made = PreTokenizer::create("llama-bpe");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(made.error().detail.find("llama-bpe"), std::string::npos);
}

}  // namespace
}  // namespace spillway
