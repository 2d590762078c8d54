#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace spillway {

enum class Utf8Kind : uint8_t {
  kCharacter,   // one well-formed character
  kInvalid,     // bytes that no text may begin with, to be replaced by one U+FFFD
  kIncomplete,  // all of the text is the beginning of a well-formed character
};

// What a text begins with, by the Unicode Standard's tables 3-7 (well-formed sequences) and 3-8 (how much one U+FFFD
// replaces: the longest prefix that could have become a character, else one byte).
struct Utf8Step {
  Utf8Kind kind;
  uint8_t length;      // bytes, 1 to 4
  char32_t character;  // of kCharacter
};
Utf8Step next_utf8(std::string_view text);  // REQUIRES: not empty

// Bytes before the first that breaks UTF-8; text.size() when it is valid.
size_t valid_utf8_prefix(std::string_view text);

// REQUIRES: a Unicode scalar value.
void append_utf8(std::string& text, char32_t character);

}  // namespace spillway
