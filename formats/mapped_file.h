#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "common/result.h"

namespace spillway {

// Which file, and in which state, as stat(2) tells: another file, or the same one written to since, has other facts.
struct FileFacts {
  uint64_t device = 0, inode = 0, bytes = 0;
  int64_t modified_ns = 0;  // since 1970
  bool operator==(const FileFacts&) const = default;
};

// A regular file mapped read-only. Moves only; the bytes live as long as the mapping. Should another process shrink the
// file meanwhile, a read past its new end is SIGBUS: model files are replaced by rename, never cut in place.
class MappedFile {
 public:
  // kInvalidArgument naming path and cause: missing, unreadable, no regular file, empty, not mappable.
  static Result<MappedFile> open(const std::string& path);
  // The same of a descriptor that is open for reading and stays the caller's; `name` is for the errors.
  static Result<MappedFile> map(int fd, const std::string& name);
  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  std::span<const std::byte> bytes() const { return bytes_; }
  const FileFacts& facts() const { return facts_; }  // when it was mapped
  // `part` of bytes() leaves this process's memory until it is read again.
  void release(std::span<const std::byte> part) const;

 private:
  MappedFile(std::span<const std::byte> bytes, const FileFacts& facts) : bytes_(bytes), facts_(facts) {}
  std::span<const std::byte> bytes_;
  FileFacts facts_;
};

}  // namespace spillway
