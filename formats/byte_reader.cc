#include "formats/byte_reader.h"

#include <fmt/format.h>

#include <cstring>

namespace spillway {

std::string ByteReader::read_string(std::string_view what, uint64_t bytes_max) {
  const auto length = read<uint64_t>();
  if (failed_) return {};
  if (length > bytes_max || length > left()) {
    fail(ErrorCode::kCorrupt, fmt::format("a {} says it has {} bytes; {} bytes are left in the file and at most {} are "
                                          "accepted",
                                          what, length, left(), bytes_max));
    return {};
  }
  std::string text(static_cast<size_t>(length), '\0');
  copy(text.data(), text.size());
  return text;
}

void ByteReader::fail(ErrorCode code, std::string_view what) {
  if (failed_) return;
  failed_ = true;
  error_ = {code, fmt::format("at byte {}: {}", position_, what)};
}

void ByteReader::copy(void* to, size_t count) {
  if (failed_) return;
  if (count > left()) {
    fail(ErrorCode::kCorrupt, fmt::format("the file ends inside a value of {} bytes: it is truncated", count));
    return;
  }
  if (count == 0) return;  // memcpy takes no null pointer, not even for nothing
  std::memcpy(to, bytes_.data() + position_, count);
  position_ += count;
}

}  // namespace spillway
