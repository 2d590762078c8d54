#include "gateway/stop_matcher.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "text/utf8.h"

namespace spillway {
namespace {

using Strings = std::vector<std::string>;

struct Found {
  std::string text;
  bool matched = false;
  bool operator==(const Found&) const = default;
};

Found run(const Strings& stops, const Strings& pieces) {
  StopMatcher matcher(stops);
  Found found;
  for (const std::string& piece : pieces) found.text += matcher.push(piece);
  found.matched = matcher.matched();
  found.text += matcher.finish();
  return found;
}

// What the class promises, in the plainest way.
Found plainly(const Strings& stops, const std::string& text) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops)
      if (std::string_view(text).substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

TEST(StopMatcher, AStopStringNeverLeavesAlsoAcrossPieces) {
  EXPECT_EQ(run({"END"}, {"one EN", "D two"}), (Found{"one ", true}));
  EXPECT_EQ(run({"END"}, {"E", "N", "D"}), (Found{"", true}));
  EXPECT_EQ(run({"\n\n", "."}, {"a\n", "b\n", "\nc."}), (Found{"a\nb", true}));
}

TEST(StopMatcher, WhatOnlyLooksLikeABeginningLeavesAsSoonAsThatIsKnown) {
  StopMatcher matcher({"abcd"});
  EXPECT_EQ(matcher.push("xab"), "x");
  EXPECT_EQ(matcher.push("ab"), "ab");
  EXPECT_EQ(matcher.push("c!"), "abc!");
  EXPECT_FALSE(matcher.matched());
}

TEST(StopMatcher, TheEndGivesWhatWaited) {
  StopMatcher matcher({"abcd"});
  EXPECT_EQ(matcher.push("xabc"), "x");
  EXPECT_EQ(matcher.finish(), "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, ABeginningInsideABeginningIsNotMissed) {
  EXPECT_EQ(run({"aab"}, {"aaa", "b"}), (Found{"a", true}));
  EXPECT_EQ(run({"abab!"}, {"ababab!"}), (Found{"ab", true}));
  EXPECT_EQ(run({"abcd", "bc"}, {"ab", "cd"}), (Found{"a", true})) << "the one that is complete first";
  EXPECT_EQ(run({"c", "bc"}, {"ab", "cd"}), (Found{"a", true})) << "of two that end together the longest";
}

TEST(StopMatcher, NothingLeavesAfterAStopString) {
  StopMatcher matcher({"."});
  EXPECT_EQ(matcher.push("a.b"), "a");
  EXPECT_TRUE(matcher.matched());
  EXPECT_EQ(matcher.push("c"), "");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, WithoutStopStringsEverythingLeavesAtOnce) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.push("abc"), "abc");
  EXPECT_EQ(matcher.finish(), "");
}

TEST(StopMatcher, CharactersThatBeginLikeAStopStringStayWhole) {
  StopMatcher matcher({"\xc3\xa9\xc3\xa9"});  // é twice
  EXPECT_EQ(matcher.push("\xc3\xa8\xc3\xa9"), "\xc3\xa8");
  EXPECT_EQ(matcher.push("\xc3\xa8"), "\xc3\xa9\xc3\xa8");
}

// Whatever RapidCheck's size is: it would begin with counts of one.
size_t any_count(size_t least, size_t most) {
  return *rc::gen::resize(rc::kNominalSize, rc::gen::inRange(least, most + 1));
}

// Few letters, one of them of two bytes: stop strings occur, overlap and nearly occur.
rc::Gen<std::string> few_letters(size_t least, size_t most) {
  return rc::gen::exec([=] {
    std::string text;
    for (size_t left = any_count(least, most); left > 0; --left)
      text += *rc::gen::element<std::string>("a", "b", "\xc3\xa9");
    return text;
  });
}

Strings few_stops() {
  Strings stops(any_count(0, kStopStringsMax));
  for (std::string& stop : stops) stop = *few_letters(1, 4);
  return stops;
}

RC_GTEST_PROP(StopMatcher, AnySplitOfATextGivesWhatThePlainestWayGives, ()) {
  const Strings stops = few_stops();
  const std::string text = *few_letters(0, 40);
  Strings pieces;
  for (size_t at = 0; at < text.size(); at += pieces.back().size()) pieces.push_back(text.substr(at, any_count(1, 5)));
  const Found expected = plainly(stops, text);
  RC_ASSERT(run(stops, {text}) == expected);
  RC_ASSERT(run(stops, pieces) == expected);
}

RC_GTEST_PROP(StopMatcher, PiecesOfWholeCharactersGiveSuch, ()) {
  StopMatcher matcher(few_stops());
  for (int piece = 0; piece < 12; ++piece) {
    const std::string out = matcher.push(*few_letters(0, 3));
    RC_ASSERT(valid_utf8_prefix(out) == out.size());
  }
  const std::string rest = matcher.finish();
  RC_ASSERT(valid_utf8_prefix(rest) == rest.size());
}

}  // namespace
}  // namespace spillway
