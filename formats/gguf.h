#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "common/result.h"
#include "formats/mapped_file.h"

namespace spillway {

// Tensor types this reader accepts (their blocks: formats/gguf_types.cc); others are an error naming tensor, type and
// this list.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kBf16 = 30,
};

struct GgufTensor {
  std::string name;
  GgufType type{};
  std::vector<uint64_t> shape;       // GGUF order: shape[0] is the contiguous dimension
  std::span<const std::byte> bytes;  // inside the mapping
};

using GgufArray =
    std::variant<std::vector<int64_t>, std::vector<double>, std::vector<std::string>>;  // ints and bools widen
using GgufValue = std::variant<int64_t, uint64_t, double, bool, std::string, GgufArray>;

// A GGUF file of version 2 or 3, mapped read-only (spec: ggml docs/gguf.md; little-endian files of both are the same).
// Every count, offset and length is checked against the file's size with overflow-checked arithmetic before use; a
// hostile file ends in an Error, never in a read outside it. Tensors lie inside the file, aligned to general.alignment
// (a multiple of 8), and do not overlap; names and keys are unique. Immutable after open(), so any thread may read.
class GgufFile {
 public:
  // kInvalidArgument: the file cannot be read. kCorrupt: it is no GGUF, or truncated, or contradicts itself.
  // kUnsupported: another version, byte order or tensor type, or nested arrays.
  static Result<GgufFile> open(const std::string& path);
  static Result<GgufFile> from_bytes(std::vector<std::byte> bytes);  // tests and fuzzing: owns the bytes
  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
  ~GgufFile();

  // Typed look-ups; an absent key or another type is kInvalidArgument naming the key. Integers of every width widen;
  // get_uint() also takes a signed one that is not negative.
  Result<uint64_t> get_uint(std::string_view key) const;
  Result<double> get_float(std::string_view key) const;
  Result<std::string> get_string(std::string_view key) const;
  Result<bool> get_bool(std::string_view key) const;
  // Pointers into this file's tables; live as long as it does.
  Result<const std::vector<std::string>*> get_strings(std::string_view key) const;
  Result<const std::vector<int64_t>*> get_ints(std::string_view key) const;
  Result<const std::vector<double>*> get_floats(std::string_view key) const;
  bool contains(std::string_view key) const;

  // kInvalidArgument naming it when there is none.
  Result<const GgufTensor*> tensor(std::string_view name) const;
  std::span<const GgufTensor> tensors() const;  // in file order
  std::span<const std::byte> bytes() const;     // the whole file, for its digest
  std::optional<FileFacts> facts() const;       // when it was opened; none of from_bytes()
  // `part` of bytes() will not be read soon: it leaves this process's memory until it is.
  void release(std::span<const std::byte> part) const;

 private:
  struct Content;
  explicit GgufFile(std::unique_ptr<Content> content);
  std::unique_ptr<Content> content_;
};

}  // namespace spillway
