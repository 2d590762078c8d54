#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "formats/mapped_file.h"
#include "kernels/backend.h"
#include "model/model_config.h"
#include "model/weights.h"

namespace spillway {

// A file of packed weights: pages of header, then a model's matrices as Backend::pack() leaves them, each from a page
// border. The header is a table: key, SHA-256 of the model file, and per matrix name, place and XXH3-128, with an
// XXH3-128 of itself. Digests guard against damage, not against an author: whoever may write the file may choose the
// weights. Host byte order: such a file never leaves its machine.

// Which packing of which model file.
struct PackedKey {
  FileFacts model;
  std::string pack_format;  // Backend::pack_format()
  bool operator==(const PackedKey&) const = default;
  std::string file_name() const;  // in a folder of many
};
// A file_name() of this or another layout of ours, taken apart; nothing where it is none.
struct PackedFileName {
  uint32_t layout = 0;  // kPackedLayout is ours
  std::string model;    // device and inode, as the name spells them
  std::string state;    // and size and time
  std::string pack_format;
};
std::optional<PackedFileName> read_packed_file_name(const std::string& name);
inline constexpr uint32_t kPackedLayout = 2;

using PackedDigest = std::array<uint64_t, 2>;  // XXH3-128
struct PackedEntry {
  std::string name;  // of its first tensor
  size_t offset = 0, bytes = 0;
  PackedDigest digest{};
};
struct PackedHeader {
  PackedKey key;
  FileDigest model_digest = {};
  std::vector<PackedEntry> entries = {};
  size_t bytes() const;  // whole pages
  size_t file_bytes() const;
};

// Where the matrices of these jobs go; digests are left open. Throws SetupError for shapes that are not supported.
PackedHeader lay_out(PackedKey key, std::span<const PackJob> jobs, const Backend& backend);
void write_header(const PackedHeader& header, std::span<std::byte> file);  // REQUIRES file_bytes() of it
// kCorrupt with the cause: cut, damaged, of another layout; nothing in it points out of `file`.
Result<PackedHeader> read_header(std::span<const std::byte> file);

// Digests of the entries' bytes, on as many threads as memory feeds.
std::vector<PackedDigest> digest_entries(const PackedHeader& header, std::span<const std::byte> file);

// A field of the header that is not part of it: how far its writer is, for those who wait (host memory or a file's).
inline constexpr size_t kProgressOffset = 16;
void write_progress(std::span<std::byte> file, uint64_t bytes_done);

}  // namespace spillway
