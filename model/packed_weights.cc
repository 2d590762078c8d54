#include "model/packed_weights.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <utility>

#include "common/check.h"
#include "common/leftover_files.h"
#include "common/log.h"
#include "common/unique_fd.h"

namespace spillway {
namespace {

struct Header {
  std::array<char, 16> magic{};
  ModelId model;
  std::array<char, 48> pack_format{};
  uint64_t bytes = 0;   // after the header page
  uint64_t digest = 0;  // XXH3-64 of them
};
static_assert(sizeof(Header) <= kPageBytes && std::is_trivially_copyable_v<Header>);
constexpr std::array<char, 16> kMagic{"spillway-pack-1"};
constexpr std::array<std::byte, kPageBytes> kZeroes{};

// All that can be known before the matrices are.
Header header_of(const ModelId& model, std::string_view pack_format) {
  Header header{.magic = kMagic, .model = model};
  CHECK(pack_format.size() < header.pack_format.size());
  std::ranges::copy(pack_format, header.pack_format.begin());
  return header;
}

struct FreeDigest {
  void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
};

// Writes a new file and keeps the digest of what was written; removes it unless renamed.
class NewFile {
 public:
  explicit NewFile(const std::string& path) : path_(path), digest_(XXH3_createState()) {
    CHECK(digest_ != nullptr && XXH3_64bits_reset(digest_.get()) == XXH_OK);
    struct stat facts {};
    while (facts.st_nlink == 0) {  // someone may have taken it for a leftover before the lock
      temporary_ = path_;
      temporary_ += kUnfinishedSuffix;
      file_ = UniqueFd(::mkostemp(temporary_.data(), O_CLOEXEC));
      if (!file_ || ::flock(file_.get(), LOCK_EX) != 0 || ::fstat(file_.get(), &facts) != 0) give_up(errno);
    }
    end_ = kPageBytes;
  }
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;
  ~NewFile() { ::unlink(temporary_.c_str()); }  // gone already where it was renamed

  void append(std::span<const std::byte> bytes) {
    write_at(end_, bytes);
    CHECK(XXH3_64bits_update(digest_.get(), bytes.data(), bytes.size()) == XXH_OK);
    end_ += bytes.size();
  }
  void finish(Header header) {
    header.bytes = end_ - kPageBytes;
    header.digest = XXH3_64bits_digest(digest_.get());
    write_at(0, std::as_bytes(std::span(&header, 1)));
    // Its reader checks the digest: no fsync() needed for a file that a power cut may leave empty.
    if (::fchmod(file_.get(), 0644) != 0 || ::rename(temporary_.c_str(), path_.c_str()) != 0) give_up(errno);
  }

 private:
  [[noreturn]] void give_up(int cause) const {
    throw SetupError(
        fmt::format("cannot write {}: {}; make room, name another folder with --cache-dir, or leave the "
                    "flag out to pack the weights in each process",
                    path_, std::strerror(cause)));
  }
  void write_at(size_t offset, std::span<const std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(file_.get(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0 && errno == EINTR) continue;
      if (written <= 0) give_up(written < 0 ? errno : ENOSPC);
      offset += static_cast<size_t>(written);
      bytes = bytes.subspan(static_cast<size_t>(written));
    }
  }

  const std::string path_;
  std::string temporary_;
  std::unique_ptr<XXH3_state_t, FreeDigest> digest_;
  UniqueFd file_;
  size_t end_ = 0;
};

}  // namespace

std::string PackedWeights::file_name(const ModelId& model, std::string_view pack_format) {
  return fmt::format("{}.{}", model.hex(), pack_format);
}

Result<PackedWeights> PackedWeights::map(const std::string& path, const ModelId& model, std::string_view pack_format) {
  Result<MappedFile> file = MappedFile::open(path);
  if (!file) return tl::unexpected<Error>(std::move(file.error()));
  const auto corrupt = [&](const char* cause) { return fail(ErrorCode::kCorrupt, fmt::format("{}: {}", path, cause)); };
  const std::span<const std::byte> bytes = file->bytes();
  if (bytes.size() < kPageBytes) return corrupt("shorter than its header");
  Header found;
  std::memcpy(&found, bytes.data(), sizeof found);
  const Header expected = header_of(model, pack_format);
  if (found.magic != expected.magic) return corrupt("holds no packed weights");
  if (found.model != model || found.pack_format != expected.pack_format)
    return corrupt("holds another model or another packing");
  const std::span<const std::byte> packed = bytes.subspan(kPageBytes);
  if (found.bytes != packed.size()) return corrupt("its size is not the one in its header");
  if (found.digest != XXH3_64bits(packed.data(), packed.size())) return corrupt("its digest does not match its bytes");
  return PackedWeights(std::move(*file));
}

void PackedWeights::write(const std::string& path, const ModelId& model, std::string_view pack_format,
                          const Weights& weights) {
  NewFile file(path);
  for (const Weight* const weight : weights.matrices()) {
    file.append({weight->data, weight->bytes});
    file.append(std::span(kZeroes).first(page_aligned(weight->bytes) - weight->bytes));
  }
  file.finish(header_of(model, pack_format));
}

PackedWeights PackedWeights::find_or_make(const std::string& folder, const GgufFile& file, const ModelConfig& config,
                                          const ModelId& model, const BackendConfig& backend) {
  if (folder.empty()) return {};
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    throw SetupError(fmt::format(
        "cannot make --cache-dir {}: {}; name another folder, or leave the flag out to pack the weights in each "
        "process",
        folder, error.message()));
  const std::unique_ptr<Backend> packer = make_backend(backend);
  const std::string path = fmt::format("{}/{}", folder, file_name(model, packer->pack_format()));
  remove_leftover_files(path);
  Result<PackedWeights> mapped = map(path, model, packer->pack_format());
  if (!mapped) {
    spdlog::info("packing weights into={} reason=\"{}\"", path, mapped.error().detail);
    const Result<Weights> weights = load_weights(file, config, *packer);
    if (!weights) throw SetupError(weights.error().detail);
    write(path, model, packer->pack_format(), *weights);
    mapped = map(path, model, packer->pack_format());
  }
  if (!mapped) throw SetupError(mapped.error().detail);
  return std::move(*mapped);
}

std::vector<std::string> PackedWeights::leftovers(const std::string& folder, const ModelId& model,
                                                  const BackendConfig& backend) {
  return leftover_files(fmt::format("{}/{}", folder, file_name(model, make_backend(backend)->pack_format())));
}

std::span<const std::byte> PackedWeights::bytes() const {
  return file_.bytes().empty() ? file_.bytes() : file_.bytes().subspan(kPageBytes);
}

}  // namespace spillway
