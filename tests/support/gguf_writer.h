#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "formats/gguf.h"

namespace spillway {

// Makes GGUF v3 files for tests: add() metadata and tensors in any order, then bytes() or write(). Writes what it is
// told, sensible or not (a key twice, an alignment of 3 in the metadata): refusing is the reader's work.
class GgufWriter {
 public:
  // Alignment of the tensor data; other than 32 it is also written as general.alignment. REQUIRES: above 0.
  explicit GgufWriter(uint32_t alignment = 32);

  // `value`: bool, an integer of 8 to 64 bits, float, double or a string; the metadata type follows from the C++ type.
  template <class T>
  GgufWriter& add(std::string_view key, const T& value) {
    begin_entry(key, type_id<T>());
    put_value(entries_, value);
    return *this;
  }
  // An array; T as above. `items` may be any contiguous range of T.
  template <class T>
  GgufWriter& add_array(std::string_view key, const std::vector<T>& items) {
    begin_entry(key, kArrayType);
    put_value(entries_, type_id<T>());
    put_value(entries_, uint64_t{items.size()});
    for (size_t index = 0; index < items.size(); ++index) put_value(entries_, static_cast<const T&>(items[index]));
    return *this;
  }
  // An entry of any type whose value is `bytes` as they are.
  GgufWriter& add_raw(std::string_view key, uint32_t type, std::span<const std::byte> bytes);
  // `shape` in GGUF order (shape[0] contiguous). `type` as in the file: GgufType or a number the reader may not know.
  GgufWriter& add_tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& shape,
                         std::span<const std::byte> bytes);
  GgufWriter& add_tensor(std::string_view name, GgufType type, const std::vector<uint64_t>& shape,
                         std::span<const std::byte> bytes) {
    return add_tensor(name, static_cast<uint32_t>(type), shape, bytes);
  }

  std::vector<std::byte> bytes() const;       // the file
  void write(const std::string& path) const;  // CHECKs that the disk took it
  static constexpr uint32_t kArrayType = 9;

 private:
  template <class T>
  static constexpr uint32_t type_id() {
    if constexpr (std::is_same_v<T, bool>)
      return 7;
    else if constexpr (std::is_same_v<T, float>)
      return 6;
    else if constexpr (std::is_same_v<T, double>)
      return 12;
    else if constexpr (std::convertible_to<T, std::string_view>)
      return 8;
    else {
      static_assert(std::is_integral_v<T>);
      constexpr uint32_t kSigned = std::is_signed_v<T> ? 1 : 0;
      if constexpr (sizeof(T) == 8)
        return 10 + kSigned;
      else
        return (sizeof(T) == 1 ? 0 : sizeof(T) == 2 ? 2 : 4) + kSigned;
    }
  }
  template <class T>
  static void put_value(std::vector<std::byte>& out, const T& value) {
    if constexpr (std::convertible_to<T, std::string_view>) {
      const std::string_view text(value);
      put_value(out, uint64_t{text.size()});
      const auto* const first = reinterpret_cast<const std::byte*>(text.data());
      out.insert(out.end(), first, first + text.size());
    } else {
      const size_t at = out.size();
      out.resize(at + sizeof value);
      std::memcpy(out.data() + at, &value, sizeof value);
    }
  }
  void begin_entry(std::string_view key, uint32_t type);

  uint32_t alignment_;
  uint64_t entry_count_ = 0, tensor_count_ = 0;
  std::vector<std::byte> entries_, tensor_infos_, data_;
};

}  // namespace spillway
