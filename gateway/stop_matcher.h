#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace spillway {

inline constexpr size_t kStopStringsMax = 4;                     // of one request, as in OpenAI's API
inline constexpr size_t kStopCharactersMax = 256;                // of one of them
inline constexpr size_t kStopBytesMax = 4 * kStopCharactersMax;  // so of UTF-8

// Cuts a text that comes in pieces before the stop string that is complete first (of those that end at one place, the
// longest). What may be the beginning of one waits, less than kStopBytesMax bytes. The result does not depend on where
// the text is cut into pieces. Pieces and stop strings of whole UTF-8 characters give pieces of whole characters. Each
// byte costs a step a stop string, by Knuth, Morris and Pratt's automaton ("Fast pattern matching in strings", 1977).
// One thread.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);  // REQUIRES: none is empty; none at all matches nothing

  // The text that is free to leave, possibly none. Nothing any more once matched().
  std::string push(std::string_view text);
  // The text ends here without a stop string: what waited.
  std::string finish();
  bool matched() const { return matched_; }

 private:
  struct Pattern {
    std::string text;
    std::vector<size_t> borders;  // [n]: longest proper prefix of the first n + 1 bytes that ends them, too
    size_t length = 0;            // bytes of `text` that end what came so far

    void take(char byte);
  };

  std::vector<Pattern> patterns_;
  std::string waiting_;
  bool matched_ = false;
};

}  // namespace spillway
