#include "text/utf8.h"

#include <cstring>

#include "common/check.h"

namespace spillway {
namespace {

// By first byte: how many bytes follow, and the range that the second one must be in.
struct Lead {
  uint8_t following, second_low, second_high;
};

Lead lead_of(uint8_t first) {
  if (first < 0xC2) return {0, 0, 0};
  if (first < 0xE0) return {1, 0x80, 0xBF};
  if (first == 0xE0) return {2, 0xA0, 0xBF};
  if (first == 0xED) return {2, 0x80, 0x9F};  // surrogates
  if (first < 0xF0) return {2, 0x80, 0xBF};
  if (first == 0xF0) return {3, 0x90, 0xBF};
  if (first < 0xF4) return {3, 0x80, 0xBF};
  if (first == 0xF4) return {3, 0x80, 0x8F};  // above U+10FFFF
  return {0, 0, 0};
}

}  // namespace

Utf8Step next_utf8(std::string_view text) {
  CHECK(!text.empty());
  const auto first = static_cast<uint8_t>(text[0]);
  if (first < 0x80) return {Utf8Kind::kCharacter, 1, first};
  const Lead lead = lead_of(first);
  if (lead.following == 0) return {Utf8Kind::kInvalid, 1, 0};
  char32_t character = first & (0x3Fu >> lead.following);
  for (uint8_t index = 1; index <= lead.following; ++index) {
    if (index == text.size()) return {Utf8Kind::kIncomplete, index, 0};
    const auto byte = static_cast<uint8_t>(text[index]);
    const bool fits = index == 1 ? byte >= lead.second_low && byte <= lead.second_high : (byte & 0xC0) == 0x80;
    if (!fits) return {Utf8Kind::kInvalid, index, 0};
    character = (character << 6) | (byte & 0x3Fu);
  }
  return {Utf8Kind::kCharacter, static_cast<uint8_t>(lead.following + 1), character};
}

size_t valid_utf8_prefix(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    uint64_t eight = 0;
    if (text.size() - position >= sizeof eight) {  // most text is ASCII: eight bytes at a time
      std::memcpy(&eight, text.data() + position, sizeof eight);
      if ((eight & 0x8080808080808080u) == 0) {
        position += sizeof eight;
        continue;
      }
    }
    const Utf8Step step = next_utf8(text.substr(position));
    if (step.kind != Utf8Kind::kCharacter) return position;
    position += step.length;
  }
  return position;
}

void append_utf8(std::string& text, char32_t character) {
  CHECK(character < 0x110000 && (character < 0xD800 || character > 0xDFFF));
  if (character < 0x80) {
    text += static_cast<char>(character);
  } else if (character < 0x800) {
    text += static_cast<char>(0xC0 | (character >> 6));
    text += static_cast<char>(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    text += static_cast<char>(0xE0 | (character >> 12));
    text += static_cast<char>(0x80 | ((character >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (character & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | (character >> 18));
    text += static_cast<char>(0x80 | ((character >> 12) & 0x3F));
    text += static_cast<char>(0x80 | ((character >> 6) & 0x3F));
    text += static_cast<char>(0x80 | (character & 0x3F));
  }
}

}  // namespace spillway
