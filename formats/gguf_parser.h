#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

// What a GGUF file says: its metadata, and its tensors as spans into the bytes that were parsed.
struct GgufTables {
  std::unordered_map<std::string, GgufValue> metadata;
  std::vector<GgufTensor> tensors;                       // in file order
  std::unordered_map<std::string, size_t> tensor_index;  // name -> index in `tensors`
};

// Parses a whole file (spec: ggml docs/gguf.md, versions 2 and 3, little-endian). The result borrows `bytes`. Memory is
// bounded by the file's size and fixed limits. kCorrupt: the bytes contradict themselves or the spec. kUnsupported:
// another version, byte order, tensor type or nested arrays.
Result<GgufTables> parse_gguf(std::span<const std::byte> bytes);

}  // namespace spillway
