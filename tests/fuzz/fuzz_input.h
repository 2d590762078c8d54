#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

// libFuzzer's entry point (LLVM docs, LibFuzzer.html). Each target asserts its properties with CHECK, which aborts.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace spillway {

inline std::string_view input_text(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}
inline std::span<const std::byte> input_bytes(const uint8_t* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

// The parts between `separator`s: at least one, at most `parts_max`, of which the last keeps its separators. Seeds stay
// readable so, and a byte that mutates in one part leaves the others as they are.
inline std::vector<std::string_view> split_input(std::string_view text, char separator, size_t parts_max) {
  std::vector<std::string_view> parts;
  while (parts.size() + 1 < parts_max) {
    const size_t at = text.find(separator);
    if (at == std::string_view::npos) break;
    parts.push_back(text.substr(0, at));
    text.remove_prefix(at + 1);
  }
  parts.push_back(text);
  return parts;
}

}  // namespace spillway
