#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "tests/text/demo_tokenizer.h"

namespace spillway {
namespace {

using Words = std::vector<std::string_view>;

Words split(std::string_view text, const std::string& name = "smollm") {
  static std::map<std::string, PreTokenizer> made;
  if (!made.contains(name)) made.emplace(name, std::move(PreTokenizer::create(name).value()));
  Words words;
  const Result<void> done = made.at(name).split(text, words);
  EXPECT_TRUE(done) << done.error().detail;
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

TEST(PreTokenizer, DigitsGoByThePattern) {
  EXPECT_EQ(split("a 12345", "gpt-2"), (Words{"a", " 12345"}));
  EXPECT_EQ(split("a 12345", "llama-bpe"), (Words{"a", " ", "123", "45"}));
  EXPECT_EQ(split("a 12345", "qwen2"), (Words{"a", " ", "1", "2", "3", "4", "5"}));
}

TEST(PreTokenizer, Llama3sWordsTakeASymbolInFrontAndLineEndsBehindSymbols) {
  for (const char* const name : {"llama-bpe", "qwen2"}) {
    EXPECT_EQ(split("(Hello)\n\nworld", name), (Words{"(Hello", ")\n\n", "world"}));
    EXPECT_EQ(split("a\tb  c", name), (Words{"a", "\tb", " ", " c"}));
    EXPECT_EQ(split("it'S I'LL 'tis don'\xC5\xBF", name),
              (Words{"it", "'S", " I", "'LL", " '", "tis", " don", "'\xC5\xBF"}));
    // In any case, the long s as well; letters behind it are another word.
    EXPECT_EQ(split("it'Sx I'LLx don'\xC5\xBFx", name),
              (Words{"it", "'S", "x", " I", "'LL", "x", " don", "'\xC5\xBF", "x"}));
    // White space up to its last line end is a word; of what is left the last goes with the next word.
    EXPECT_EQ(split(" \n \r\n  x", name), (Words{" \n \r\n", " ", " x"}));
    EXPECT_EQ(split("x \n ", name), (Words{"x", " \n", " "}));
  }
  EXPECT_EQ(split("(Hello)\n\nworld it'S", "gpt-2"), (Words{"(", "Hello", ")", "\n", "\n", "world", " it", "'", "S"}));
}

// Patterns as they are usually written go back over a run of white space for every character of it.
TEST(PreTokenizer, TimeIsLinearInRunsOfAnything) {
  for (const char* const name : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    for (const std::string_view unit :
         {" ", "\n", " \n", "\r", "a", "7", "!", "'", "\xE3\x80\x80", "a ", " \n a", "\xCC\x81"}) {
      std::string text;
      while (text.size() < size_t{1} << 20) text += unit;
      text += "x";
      const double begin = cpu_seconds();
      size_t bytes = 0;
      for (const std::string_view word : split(text, name)) bytes += word.size();
      EXPECT_LT(cpu_seconds() - begin, 4.0) << name << ": " << unit;
      EXPECT_EQ(bytes, text.size());
    }
  }
}

TEST(PreTokenizer, AnotherNameIsRefused) {
  const Result<PreTokenizer> made = PreTokenizer::create("tekken");
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kUnsupported);
  EXPECT_NE(made.error().detail.find("tekken"), std::string::npos);
}

}  // namespace
}  // namespace spillway
