#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/result.h"
#include "formats/gguf.h"

namespace spillway {

// Reads one architecture's metadata, value after value, each within bounds, and keeps the first error, so that reading
// a config is one line a key. `name` is a key without the architecture's prefix, which errors give in full. After an
// error values are 0 or empty. One thread; borrows the file.
class MetadataReader {
 public:
  MetadataReader(const GgufFile& file, std::string_view architecture) : file_(file), prefix_(architecture) {}

  std::string key(std::string_view name) const;  // "llama.block_count"
  bool has(std::string_view name) const { return file_.contains(key(name)); }
  uint64_t required(std::string_view name, uint64_t low, uint64_t high);
  uint64_t optional(std::string_view name, uint64_t absent, uint64_t low, uint64_t high);
  double required_real(std::string_view name, double low, double high);
  double optional_real(std::string_view name, double absent, double low, double high);
  std::string optional_text(std::string_view name, std::string_view absent);

  void set_error(ErrorCode code, std::string detail);
  const std::optional<Error>& error() const { return error_; }

 private:
  template <class T>
  T take(const Result<T>& value);
  void refuse(std::string_view name, const std::string& value, const std::string& supported);

  const GgufFile& file_;
  const std::string prefix_;
  std::optional<Error> error_;
};

}  // namespace spillway
