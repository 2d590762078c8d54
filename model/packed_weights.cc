#include "model/packed_weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/clock.h"
#include "common/huge_pages.h"
#include "common/log.h"
#include "common/memory.h"
#include "common/thread.h"

namespace spillway {
namespace {

constexpr Duration kSayEvery = std::chrono::seconds(1);
constexpr double kMiB = 1 << 20;

std::vector<PackJob> jobs_of(const GgufFile& file, const ModelConfig& config, Backend& backend) {
  Result<std::vector<PackJob>> jobs = pack_jobs(file, config, backend);
  if (!jobs) throw SetupError(jobs.error().detail);
  return std::move(*jobs);
}

std::optional<PackedKey> key_of(const GgufFile& file, const Backend& backend) {
  const std::optional<FileFacts> facts = file.facts();
  if (!facts) return std::nullopt;
  return PackedKey{*facts, std::string(backend.pack_format())};
}

// Writable memory of a file, as long as it lives.
class WritableMapping {
 public:
  WritableMapping(int file, size_t bytes)
      : memory_(map_file(bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file)), bytes_(bytes) {}
  WritableMapping(const WritableMapping&) = delete;
  WritableMapping& operator=(const WritableMapping&) = delete;
  ~WritableMapping() {
    if (memory_ != MAP_FAILED) ::munmap(memory_, bytes_);
  }
  explicit operator bool() const { return memory_ != MAP_FAILED; }
  std::span<std::byte> bytes() const { return {static_cast<std::byte*>(memory_), bytes_}; }

 private:
  void* const memory_;
  const size_t bytes_;
};

}  // namespace

Result<PackedWeights> PackedWeights::map(UniqueFd file, const std::string& name, const PackedKey& key) {
  Result<MappedFile> mapping = MappedFile::map(file.get(), name);
  if (!mapping) return fail(ErrorCode::kCorrupt, std::move(mapping.error().detail));
  prefer_huge_pages(mapping->bytes());
  Result<PackedHeader> header = read_header(mapping->bytes());
  if (!header) return fail(header.error().code, fmt::format("{}: {}", name, header.error().detail));
  if (header->key != key)
    return fail(ErrorCode::kCorrupt, fmt::format("{}: it is of another model file or another packing", name));
  return PackedWeights(std::move(file), std::move(*mapping), std::move(*header));
}

Result<void> PackedWeights::intact() const {
  const std::vector<PackedDigest> digests = digest_entries(header_, mapping_.bytes());
  for (size_t i = 0; i < digests.size(); ++i)
    if (digests[i] != header_.entries[i].digest)
      return fail(ErrorCode::kCorrupt, fmt::format("matrix {} is damaged", header_.entries[i].name));
  return {};
}

std::vector<PackedMatrix> PackedWeights::matrices() const {
  std::vector<PackedMatrix> all;
  for (const PackedEntry& entry : header_.entries)
    all.push_back({entry.name, mapping_.bytes().subspan(entry.offset, entry.bytes)});
  return all;
}

UniqueFd PackedWeights::unmap() && {
  mapping_ = MappedFile();
  return std::move(file_);
}

WeightPacker::WeightPacker(const GgufFile& file, const ModelConfig& config, Backend& backend)
    : file_(file),
      backend_(backend),
      jobs_(jobs_of(file, config, backend)),
      key_(key_of(file, backend)),
      header_(lay_out(key_.value_or(PackedKey{{}, std::string(backend.pack_format())}), jobs_, backend)) {}

void WeightPacker::pack_jobs_into(std::span<std::byte> memory, const std::string& name) {
  TimePoint say_at = steady_now() + kSayEvery;
  for (size_t i = 0; i < jobs_.size(); ++i) {
    const PackedEntry& entry = header_.entries[i];
    const std::span<std::byte> matrix = memory.subspan(entry.offset, entry.bytes);
    ::madvise(matrix.data(), matrix.size(), MADV_POPULATE_WRITE);  // half of what a fault for each page costs
    backend_.pack(jobs_[i].tensors, jobs_[i].order, matrix);
    for (const FileTensor& tensor : jobs_[i].tensors) file_.release(tensor.bytes);
    const size_t done = entry.offset + entry.bytes;
    write_progress(memory, done);
    if (const TimePoint now = steady_now(); now >= say_at) {
      spdlog::info("packing weights: {:.0f} % of {:.0f} MiB into={}",
                   100 * static_cast<double>(done) / static_cast<double>(memory.size()),
                   static_cast<double>(memory.size()) / kMiB, name);
      say_at = now + kSayEvery;
    }
  }
}

Result<void> WeightPacker::pack(int file, const std::string& name) {
  const WritableMapping mapping(file, bytes());
  if (!mapping) return fail(ErrorCode::kNoSpace, fmt::format("cannot map {}: {}", name, std::strerror(errno)));
  prefer_huge_pages(mapping.bytes());
  {
    const Thread hashing("hash", [this] { header_.model_digest = digest_of(file_); });
    pack_jobs_into(mapping.bytes(), name);
  }
  const std::vector<PackedDigest> digests = digest_entries(header_, mapping.bytes());
  for (size_t i = 0; i < digests.size(); ++i) header_.entries[i].digest = digests[i];
  write_header(header_, mapping.bytes());
  collapse_into_huge_pages(mapping.bytes());  // of a memfd; file systems do as they prefer
  return {};
}

PackedWeights WeightPacker::pack_in_memory() {
  const auto cannot = [&](const char* cause) {
    return SetupError(
        fmt::format("cannot hold the packed weights in memory: {}; {} bytes are needed, {} available: free memory, "
                    "raise the limits (ulimit -f, ulimit -v), or pack into a folder with --cache-dir",
                    cause, bytes(), available_memory_bytes()));
  };
  if (bytes() > available_memory_bytes()) throw cannot("more than is available");
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && bytes() > limit.rlim_cur) throw cannot(std::strerror(EFBIG));
  UniqueFd file(::memfd_create("spillway-weights", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!file) throw cannot(std::strerror(errno));
  if (const int error = ::posix_fallocate(file.get(), 0, static_cast<off_t>(bytes())); error != 0)
    throw cannot(std::strerror(error));
  if (const Result<void> packed = pack(file.get(), "memory"); !packed) throw cannot(packed.error().detail.c_str());
  if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0)
    throw cannot(std::strerror(errno));
  Result<PackedWeights> mapped = PackedWeights::map(std::move(file), "packed weights in memory", header_.key);
  if (!mapped) throw cannot(mapped.error().detail.c_str());
  return std::move(*mapped);
}

}  // namespace spillway
