#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace spillway {

// What Python's str does, over UTF-8: templates are written for it. All texts: REQUIRES valid UTF-8.

bool is_python_space(char32_t character);  // str.isspace() of one character

enum class StripSides : uint8_t { kLeft, kRight, kBoth };
// Without white space at the sides; with `characters`, without any of those.
std::string_view python_strip(std::string_view text, StripSides sides,
                              std::optional<std::string_view> characters = std::nullopt);

// The characters of a text, as views into it.
std::vector<std::string_view> python_characters(std::string_view text);
size_t python_length(std::string_view text);  // in characters

// str.split(): at white space, or at `separator` (REQUIRES: not empty); at most `splits_max` times, no limit if
// negative.
std::vector<std::string_view> python_split(std::string_view text, std::optional<std::string_view> separator,
                                           int64_t splits_max);

// The indices that [start:stop:step] selects of `length` items, in order. REQUIRES: step != 0.
std::vector<size_t> python_slice(size_t length, std::optional<int64_t> start, std::optional<int64_t> stop,
                                 int64_t step);

}  // namespace spillway
