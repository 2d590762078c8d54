#include "kv/block.h"

#include "common/check.h"

namespace spillway {

std::string ModelId::hex() const {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(2 * bytes.size());
  for (const std::byte byte : bytes) {
    text.push_back(kDigits[std::to_integer<unsigned>(byte) >> 4]);
    text.push_back(kDigits[std::to_integer<unsigned>(byte) & 15u]);
  }
  return text;
}

std::string_view kv_dtype_name(KvDtype dtype) {
  switch (dtype) {
    case KvDtype::kBf16: return "bf16";
    case KvDtype::kInt8: return "int8";
  }
  CHECK(false);
}

std::span<std::byte> SlotArena::parts(SlotId slot, LayerRange layers) const {
  CHECK(base != nullptr);
  CHECK(static_cast<uint32_t>(slot) < slot_count);
  CHECK(size_t{layers.first} + layers.count <= layout.layer_count);
  const size_t slot_bytes = header_bytes + layout.block_bytes();
  std::byte* const block = base + static_cast<size_t>(slot) * slot_bytes + header_bytes;
  return {block + layers.first * layout.part_bytes(), layers.count * layout.part_bytes()};
}

}  // namespace spillway
