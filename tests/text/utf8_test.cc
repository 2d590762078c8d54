#include "text/utf8.h"

#include <gtest/gtest.h>

namespace spillway {
namespace {

TEST(Utf8, EveryScalarValueRoundTripsAndEveryProperPrefixIsIncomplete) {
  for (char32_t character = 0; character < 0x110000; ++character) {
    if (character >= 0xD800 && character <= 0xDFFF) continue;
    std::string text;
    append_utf8(text, character);
    const Utf8Step whole = next_utf8(text + "\xFF");
    ASSERT_EQ(whole.kind, Utf8Kind::kCharacter);
    ASSERT_EQ(whole.length, text.size());
    ASSERT_EQ(whole.character, character);
    for (size_t length = 1; length < text.size(); ++length) {
      const Utf8Step part = next_utf8(std::string_view(text).substr(0, length));
      ASSERT_EQ(part.kind, Utf8Kind::kIncomplete);
      ASSERT_EQ(part.length, length);
    }
  }
}

TEST(Utf8, IllFormedSequencesAreInvalidForAsLongAsTheyMightHaveBecomeOne) {
  struct Case {
    std::string_view text;
    uint8_t length;
  };
  const Case cases[] = {{"\x80", 1},         {"\xC0\x80", 1},     {"\xC1\xBF", 1},     {"\xF5\x80\x80\x80", 1},
                        {"\xFF", 1},         {"\xE0\x80\x80", 1}, {"\xED\xA0\x80", 1}, {"\xF0\x80\x80\x80", 1},
                        {"\xF4\x90\x80", 1}, {"\xC3(", 1},        {"\xE2\x82(", 2},    {"\xF0\x9F(\x80", 2},
                        {"\xF0\x9F\x98(", 3}};
  for (const Case& c : cases) {
    const Utf8Step step = next_utf8(c.text);
    EXPECT_EQ(step.kind, Utf8Kind::kInvalid);
    EXPECT_EQ(step.length, c.length);
  }
}

TEST(Utf8, ThePrefixEndsAtTheFirstBadByteWhereverItIs) {
  const std::string good = "plain ascii of some length \xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 and more plain ascii";
  EXPECT_EQ(valid_utf8_prefix(good), good.size());
  EXPECT_EQ(valid_utf8_prefix(""), 0u);
  for (size_t at = 0; at <= good.size(); ++at) {
    const std::string bad = good.substr(0, at) + "\xFF" + good.substr(at);
    const size_t prefix = valid_utf8_prefix(bad);
    EXPECT_LE(prefix, at);
    EXPECT_LE(at - prefix, 3u);  // a character that the insertion cut is not counted
  }
}

}  // namespace
}  // namespace spillway
