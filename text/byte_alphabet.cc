#include "text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "text/utf8.h"

namespace spillway {
namespace {

constexpr char32_t kCharactersEnd = 0x100 + 68;
constexpr int16_t kNoByte = -1;

constexpr bool stands_for_itself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

constexpr std::array<int16_t, kCharactersEnd> make_table() {
  std::array<int16_t, kCharactersEnd> table{};
  for (int16_t& byte : table) byte = kNoByte;
  size_t next = 0x100;
  for (int16_t byte = 0; byte < 256; ++byte) table[stands_for_itself(byte) ? static_cast<size_t>(byte) : next++] = byte;
  return table;
}
constexpr std::array<int16_t, kCharactersEnd> kByteOf = make_table();

}  // namespace

std::optional<std::string> bytes_from_alphabet(std::string_view written) {
  std::string bytes;
  while (!written.empty()) {
    const Utf8Step step = next_utf8(written);
    if (step.kind != Utf8Kind::kCharacter || step.character >= kCharactersEnd) return std::nullopt;
    const int16_t byte = kByteOf[step.character];
    if (byte == kNoByte) return std::nullopt;
    bytes += static_cast<char>(byte);
    written.remove_prefix(step.length);
  }
  return bytes;
}

}  // namespace spillway
