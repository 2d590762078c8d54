#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace spillway {

// One tensor type of GGUF (ggml.h, enum ggml_type): `block_values` neighbours along shape[0] lie in `block_bytes`.
struct GgufTypeInfo {
  uint32_t id = 0;
  std::string_view name;                       // as people and file names call it
  uint32_t block_values = 0, block_bytes = 0;  // both 0: known by name only, not supported
  bool supported() const { return block_values > 0; }
};

// nullptr for a number that no version of ggml gave a name.
const GgufTypeInfo* gguf_type_info(uint32_t id);

// "F32, F16, ...": all that is supported, for error messages.
std::string supported_gguf_types();

}  // namespace spillway
