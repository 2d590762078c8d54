#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace spillway {

// GPT-2's way to write any bytes as printable text, used by the tokens and merges of byte-level vocabularies: printable
// Latin-1 stands for itself, the other 68 bytes are U+0100 onwards in ascending order (so a space is U+0120).
// Returns the bytes that `written` stands for; nullopt when a character is not of this alphabet.
std::optional<std::string> bytes_from_alphabet(std::string_view written);

}  // namespace spillway
