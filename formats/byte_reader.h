#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "common/result.h"

namespace spillway {

static_assert(std::endian::native == std::endian::little, "read() copies little-endian values as they are");

// Reads little-endian values, front to back, from bytes of unknown intent; never outside them. The first failure
// sticks: from then on every read gives zero and moves nothing, so a parser may read a whole record and ask failed()
// once, before it uses what it read. Borrows the bytes. One thread.
class ByteReader {
 public:
  explicit ByteReader(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  T read() {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value{};
    copy(&value, sizeof value);
    return value;
  }
  // A 64-bit length, then that many bytes. `what` names it in the error: "metadata key".
  std::string read_string(std::string_view what, uint64_t bytes_max);

  size_t position() const { return position_; }
  size_t left() const { return bytes_.size() - position_; }
  bool failed() const { return failed_; }
  const Error& error() const { return error_; }  // REQUIRES: failed()
  // Records the first failure; the position is put before `what`.
  void fail(ErrorCode code, std::string_view what);

 private:
  void copy(void* to, size_t count);

  std::span<const std::byte> bytes_;
  size_t position_ = 0;
  bool failed_ = false;
  Error error_{ErrorCode::kCorrupt, {}};
};

}  // namespace spillway
