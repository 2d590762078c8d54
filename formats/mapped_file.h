#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "common/result.h"

namespace spillway {

// A regular file mapped read-only. Moves only; the bytes live as long as the mapping. Should another process shrink the
// file meanwhile, a read past its new end is SIGBUS: model files are replaced by rename, never cut in place.
class MappedFile {
 public:
  // kInvalidArgument naming path and cause: missing, unreadable, no regular file, empty, not mappable.
  static Result<MappedFile> open(const std::string& path);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return bytes_; }

 private:
  explicit MappedFile(std::span<const std::byte> bytes) : bytes_(bytes) {}
  std::span<const std::byte> bytes_;
};

}  // namespace spillway
