#include "text/python_string.h"

#include <algorithm>

#include "common/check.h"
#include "text/utf8.h"

namespace spillway {
namespace {

size_t last_character_length(std::string_view text) {
  size_t length = 1;
  while (length < text.size() && (static_cast<uint8_t>(text[text.size() - length]) & 0xC0) == 0x80) ++length;
  return length;
}

bool is_stripped(std::string_view character, std::optional<std::string_view> characters) {
  return characters ? characters->find(character) != std::string_view::npos
                    : is_python_space(next_utf8(character).character);
}

size_t next_space(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const Utf8Step step = next_utf8(text.substr(position));
    if (is_python_space(step.character)) break;
    position += step.length;
  }
  return position;
}

}  // namespace

bool is_python_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::string_view python_strip(std::string_view text, StripSides sides, std::optional<std::string_view> characters) {
  while (sides != StripSides::kRight && !text.empty()) {
    const size_t length = next_utf8(text).length;
    if (!is_stripped(text.substr(0, length), characters)) break;
    text.remove_prefix(length);
  }
  while (sides != StripSides::kLeft && !text.empty()) {
    const size_t length = last_character_length(text);
    if (!is_stripped(text.substr(text.size() - length), characters)) break;
    text.remove_suffix(length);
  }
  return text;
}

std::vector<std::string_view> python_characters(std::string_view text) {
  std::vector<std::string_view> characters;
  while (!text.empty()) {
    const size_t length = next_utf8(text).length;
    characters.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return characters;
}

size_t python_length(std::string_view text) {
  return static_cast<size_t>(
      std::ranges::count_if(text, [](char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }));
}

std::vector<std::string_view> python_split(std::string_view text, std::optional<std::string_view> separator,
                                           int64_t splits_max) {
  CHECK(!separator || !separator->empty());
  std::vector<std::string_view> pieces;
  if (!separator) text = python_strip(text, StripSides::kLeft);
  // At white space there are no empty pieces; at a separator there are, and an empty text is one.
  while (separator || !text.empty()) {
    const size_t end = std::min(separator ? text.find(*separator) : next_space(text), text.size());
    if (splits_max == 0 || end == text.size()) {
      pieces.push_back(text);
      break;
    }
    pieces.push_back(text.substr(0, end));
    text.remove_prefix(end + (separator ? separator->size() : 0));
    if (!separator) text = python_strip(text, StripSides::kLeft);
    if (splits_max > 0) --splits_max;
  }
  return pieces;
}

std::vector<size_t> python_slice(size_t length, std::optional<int64_t> start, std::optional<int64_t> stop,
                                 int64_t step) {
  CHECK(step != 0);
  const auto size = static_cast<int64_t>(length);
  const int64_t low = step > 0 ? 0 : -1, high = step > 0 ? size : size - 1;
  const auto place = [&](int64_t index) { return std::clamp(index < 0 ? index + size : index, low, high); };
  int64_t index = start ? place(*start) : (step > 0 ? low : high);
  const int64_t end = stop ? place(*stop) : (step > 0 ? high : low);
  std::vector<size_t> indices;
  while (step > 0 ? index < end : index > end) {
    indices.push_back(static_cast<size_t>(index));
    if (__builtin_add_overflow(index, step, &index)) break;
  }
  return indices;
}

}  // namespace spillway
