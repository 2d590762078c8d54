#include "common/quote.h"

#include <fmt/format.h>

namespace spillway {

std::string quote_foreign(std::string_view text) {
  constexpr size_t kShownMax = 64;
  // By hand: the {:?} of fmt 9 asserts on bytes that are not UTF-8, and these are anybody's.
  std::string shown = "\"";
  for (const char one : text.substr(0, kShownMax)) {
    const auto byte = static_cast<unsigned char>(one);
    if (byte < 0x20 || byte >= 0x7F || one == '"' || one == '\\')
      shown += fmt::format("\\x{:02x}", byte);
    else
      shown += one;
  }
  return shown + (text.size() > kShownMax ? "\"..." : "\"");
}

}  // namespace spillway
