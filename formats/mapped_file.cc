#include "formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/huge_pages.h"
#include "common/unique_fd.h"

namespace spillway {
namespace {

tl::unexpected<Error> cannot(const char* verb, const std::string& path, const std::string& cause) {
  return fail(ErrorCode::kInvalidArgument, fmt::format("cannot {} {}: {}", verb, path, cause));
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept
    : bytes_(std::exchange(other.bytes_, {})), facts_(std::exchange(other.facts_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  std::swap(facts_, other.facts_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must end in the "no regular file" below, not wait for a writer.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return cannot("open", path, std::strerror(errno));
  return map(file.get(), path);
}

Result<MappedFile> MappedFile::map(int fd, const std::string& name) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) return cannot("read", name, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return cannot("read", name, "it is no regular file");
  if (status.st_size <= 0) return cannot("read", name, "it is empty");
  const auto size = static_cast<size_t>(status.st_size);
  void* const memory = map_file(size, PROT_READ, MAP_PRIVATE, fd);
  if (memory == MAP_FAILED) return cannot("map", name, std::strerror(errno));
  const FileFacts facts{status.st_dev, status.st_ino, size,
                        int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec};
  return MappedFile({static_cast<const std::byte*>(memory), size}, facts);
}

void MappedFile::release(std::span<const std::byte> part) const {
  if (part.empty()) return;
  const auto page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
  const size_t begin = static_cast<size_t>(part.data() - bytes_.data()) / page * page;
  const size_t end = static_cast<size_t>(part.data() + part.size() - bytes_.data());
  ::madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace spillway
