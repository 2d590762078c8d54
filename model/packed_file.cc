#include "model/packed_file.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "common/check.h"
#include "common/cores.h"
#include "common/thread.h"

namespace spillway {
namespace {

constexpr size_t kNameBytes = 64;  // as GGUF bounds them
constexpr uint32_t kEntriesMax = 1 << 16;
constexpr uint32_t kDigestThreadsMax = 16;  // beyond, memory is the limit
constexpr std::string_view kSuffix = ".packed";

struct FixedHeader {
  std::array<char, kProgressOffset> magic{};
  uint64_t progress = 0;  // zero in the digest
  std::array<char, 48> pack_format{};
  uint64_t device = 0, inode = 0, model_bytes = 0;
  int64_t modified_ns = 0;
  FileDigest model_digest{};
  uint64_t file_bytes = 0;
  uint64_t entries = 0;
  PackedDigest digest{};  // of header and table, both fields zero
};
struct FixedEntry {
  std::array<char, kNameBytes> name{};
  uint64_t offset = 0, bytes = 0;
  PackedDigest digest{};
};
static_assert(sizeof(FixedHeader) <= kPageBytes && std::is_trivially_copyable_v<FixedHeader>);
static_assert(sizeof(FixedEntry) == 96 && std::is_trivially_copyable_v<FixedEntry>);
static_assert(offsetof(FixedHeader, progress) == kProgressOffset);
constexpr std::array<char, kProgressOffset> kMagic{"spillway-pack-2"};

size_t page_aligned(size_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

template <size_t N>
std::string text_of(const std::array<char, N>& field) {
  return {field.data(), std::find(field.begin(), field.end(), '\0')};
}

PackedDigest digest_of(std::span<const std::byte> bytes) {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.low64, hash.high64};
}

// Of the header's fixed part and its table.
PackedDigest header_digest(FixedHeader fixed, std::span<const std::byte> table) {
  fixed.progress = 0;
  fixed.digest = {};
  std::vector<std::byte> all(sizeof fixed + table.size());
  std::memcpy(all.data(), &fixed, sizeof fixed);
  std::ranges::copy(table, all.begin() + sizeof fixed);
  return digest_of(all);
}

FixedHeader fixed_header(const PackedHeader& header) {
  FixedHeader fixed{.magic = kMagic};
  CHECK(header.key.pack_format.size() < fixed.pack_format.size());
  std::ranges::copy(header.key.pack_format, fixed.pack_format.begin());
  fixed.device = header.key.model.device;
  fixed.inode = header.key.model.inode;
  fixed.model_bytes = header.key.model.bytes;
  fixed.modified_ns = header.key.model.modified_ns;
  fixed.model_digest = header.model_digest;
  fixed.file_bytes = header.file_bytes();
  fixed.entries = header.entries.size();
  return fixed;
}

std::span<const std::byte> part_of(std::span<const std::byte> file, const PackedEntry& entry) {
  return file.subspan(entry.offset, entry.bytes);
}

bool all_of_set(std::string_view text, std::string_view set) {
  return !text.empty() && text.find_first_not_of(set) == std::string_view::npos;
}

}  // namespace

std::string PackedKey::file_name() const {
  return fmt::format("{:x}-{:x}-{:x}-{:x}.{}{}{}", model.device, model.inode, model.bytes, model.modified_ns,
                     pack_format, kSuffix, kPackedLayout);
}

std::optional<PackedFileName> read_packed_file_name(const std::string& name) {
  constexpr std::string_view kHex = "0123456789abcdef", kDigits = "0123456789";
  const size_t dot = name.find('.');
  if (dot == std::string::npos) return std::nullopt;
  const std::string before = name.substr(0, dot), after = name.substr(dot + 1);
  if (before.size() == 32 && all_of_set(before, kHex) && after.starts_with("cpu-") && after.find('.') == after.npos)
    return PackedFileName{1, before, before, after};  // layout 1: ModelId.format
  const size_t suffix = after.rfind(kSuffix);
  if (suffix == std::string::npos) return std::nullopt;
  const std::string layout = after.substr(suffix + kSuffix.size());
  const size_t second = before.find('-', before.find('-') + 1);  // after device and inode
  if (!all_of_set(before, "0123456789abcdef-") || second == std::string::npos || !all_of_set(layout, kDigits))
    return std::nullopt;
  PackedFileName found{0, before.substr(0, second), before, after.substr(0, suffix)};
  const auto end = layout.data() + layout.size();
  if (std::from_chars(layout.data(), end, found.layout).ptr != end || found.layout == 0) return std::nullopt;
  return found;
}

size_t PackedHeader::bytes() const { return page_aligned(sizeof(FixedHeader) + entries.size() * sizeof(FixedEntry)); }

size_t PackedHeader::file_bytes() const {
  return entries.empty() ? bytes() : page_aligned(entries.back().offset + entries.back().bytes);
}

PackedHeader lay_out(PackedKey key, std::span<const PackJob> jobs, const Backend& backend) {
  PackedHeader header{.key = std::move(key)};
  CHECK(!jobs.empty() && jobs.size() <= kEntriesMax);
  header.entries.resize(jobs.size());
  size_t offset = header.bytes();
  for (size_t i = 0; i < jobs.size(); ++i) {
    CHECK(jobs[i].tensors[0].name.size() <= kNameBytes);  // names are ours
    header.entries[i] = {jobs[i].tensors[0].name, offset, backend.packed_bytes(jobs[i].tensors, jobs[i].order)};
    offset = page_aligned(offset + header.entries[i].bytes);
  }
  return header;
}

void write_header(const PackedHeader& header, std::span<std::byte> file) {
  CHECK(file.size() == header.file_bytes());
  std::vector<FixedEntry> table(header.entries.size());
  for (size_t i = 0; i < table.size(); ++i) {
    const PackedEntry& entry = header.entries[i];
    std::ranges::copy(entry.name, table[i].name.begin());
    table[i].offset = entry.offset;
    table[i].bytes = entry.bytes;
    table[i].digest = entry.digest;
  }
  FixedHeader fixed = fixed_header(header);
  fixed.digest = header_digest(fixed, std::as_bytes(std::span(table)));
  std::memcpy(file.data() + sizeof fixed, table.data(), table.size() * sizeof(FixedEntry));
  std::memcpy(file.data(), &fixed, sizeof fixed);
}

Result<PackedHeader> read_header(std::span<const std::byte> file) {
  const auto corrupt = [](const char* cause) { return fail(ErrorCode::kCorrupt, cause); };
  FixedHeader fixed;
  if (file.size() < kPageBytes) return corrupt("shorter than its header");
  std::memcpy(&fixed, file.data(), sizeof fixed);
  if (fixed.magic != kMagic) return corrupt("holds no packed weights of this layout");
  const std::span<const std::byte> rest = file.subspan(sizeof fixed);
  if (fixed.entries == 0 || fixed.entries > kEntriesMax || fixed.entries > rest.size() / sizeof(FixedEntry))
    return corrupt("its table does not fit into it");
  const std::span<const std::byte> bytes = rest.first(fixed.entries * sizeof(FixedEntry));
  if (header_digest(fixed, bytes) != fixed.digest) return corrupt("the digest of its header does not match");
  if (fixed.file_bytes != file.size()) return corrupt("its size is not the one in its header");
  std::vector<FixedEntry> table(fixed.entries);
  std::memcpy(table.data(), bytes.data(), bytes.size());
  PackedHeader header{
      .key = {{fixed.device, fixed.inode, fixed.model_bytes, fixed.modified_ns}, text_of(fixed.pack_format)},
      .model_digest = fixed.model_digest};
  for (const FixedEntry& entry : table) {
    if (entry.offset % kPageBytes != 0 || entry.offset > file.size() || entry.bytes > file.size() - entry.offset)
      return corrupt("a matrix does not lie in it");
    header.entries.push_back({text_of(entry.name), entry.offset, entry.bytes, entry.digest});
  }
  return header;
}

std::vector<PackedDigest> digest_entries(const PackedHeader& header, std::span<const std::byte> file) {
  std::vector<PackedDigest> digests(header.entries.size());
  std::atomic<size_t> next = 0;
  const auto work = [&] {
    for (size_t i = next++; i < digests.size(); i = next++) digests[i] = digest_of(part_of(file, header.entries[i]));
  };
  std::vector<std::unique_ptr<Thread>> others;
  for (uint32_t i = 1; i < std::min(available_cores(), kDigestThreadsMax); ++i)
    others.push_back(std::make_unique<Thread>("digest", work));
  work();
  others.clear();
  return digests;
}

void write_progress(std::span<std::byte> file, uint64_t bytes_done) {
  std::memcpy(file.data() + kProgressOffset, &bytes_done, sizeof bytes_done);
}

}  // namespace spillway
