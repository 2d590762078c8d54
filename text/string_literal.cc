#include "text/string_literal.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

#include "text/utf8.h"

namespace spillway {
namespace {

int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

// Up to `digits_max` digits at the front of `text`, taken off it.
struct Number {
  char32_t value = 0;
  size_t digits = 0;
};
Number take_number(std::string_view& text, int base, size_t digits_max) {
  Number number;
  while (number.digits < digits_max && !text.empty() && digit_value(text[0]) < base) {
    number.value = number.value * static_cast<char32_t>(base) + static_cast<char32_t>(digit_value(text[0]));
    ++number.digits;
    text.remove_prefix(1);
  }
  return number;
}

// \xHH, \uHHHH or \UHHHHHHHH; `rest` begins after that letter.
Result<void> resolve_hexadecimal(char letter, std::string_view& rest, std::string& text) {
  const size_t digits = letter == 'x' ? 2 : letter == 'u' ? 4 : 8;
  const Number number = take_number(rest, 16, digits);
  if (number.digits != digits || number.value > 0x10FFFF || (number.value >= 0xD800 && number.value <= 0xDFFF))
    return fail(
        ErrorCode::kInvalidArgument,
        fmt::format("a string with \\{} must go on with the {} hexadecimal digits of a character", letter, digits));
  append_utf8(text, number.value);
  return {};
}

}  // namespace

Result<std::string> resolve_escapes(std::string_view written) {
  constexpr std::string_view kLetters = "\\'\"abfnrtv", kMeanings = "\\'\"\a\b\f\n\r\t\v";
  std::string text;
  while (!written.empty()) {
    const size_t backslash = std::min(written.find('\\'), written.size());
    text += written.substr(0, backslash);
    written.remove_prefix(backslash);
    if (written.empty()) break;
    if (written.size() == 1) return fail(ErrorCode::kInvalidArgument, "a string ends in a backslash");
    const char letter = written[1];
    if (letter >= '0' && letter <= '7') {
      written.remove_prefix(1);
      append_utf8(text, take_number(written, 8, 3).value);
      continue;
    }
    written.remove_prefix(2);
    if (const size_t known = kLetters.find(letter); known != std::string_view::npos) {
      text += kMeanings[known];
    } else if (letter == 'x' || letter == 'u' || letter == 'U') {
      const Result<void> resolved = resolve_hexadecimal(letter, written, text);
      if (!resolved) return tl::unexpected<Error>(resolved.error());
    } else if (letter == 'N' || static_cast<uint8_t>(letter) >= 0x80) {
      return fail(ErrorCode::kUnsupported, "a string with \\N{...} or a backslash before a character beyond ASCII");
    } else if (letter != '\n') {  // a backslash before a line end removes both
      text += {'\\', letter};
    }
  }
  return text;
}

}  // namespace spillway
