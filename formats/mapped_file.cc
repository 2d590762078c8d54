#include "formats/mapped_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "common/unique_fd.h"

namespace spillway {
namespace {

tl::unexpected<Error> cannot(const char* verb, const std::string& path, const std::string& cause) {
  return fail(ErrorCode::kInvalidArgument, fmt::format("cannot {} {}: {}", verb, path, cause));
}

}  // namespace

MappedFile::MappedFile(MappedFile&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Result<MappedFile> MappedFile::open(const std::string& path) {
  // O_NONBLOCK: opening a FIFO must end in the "no regular file" below, not wait for a writer.
  const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file) return cannot("open", path, std::strerror(errno));
  struct stat status {};
  if (::fstat(file.get(), &status) != 0) return cannot("read", path, std::strerror(errno));
  if (!S_ISREG(status.st_mode)) return cannot("read", path, "it is no regular file");
  if (status.st_size <= 0) return cannot("read", path, "it is empty");
  const auto size = static_cast<size_t>(status.st_size);
  void* const memory = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (memory == MAP_FAILED) return cannot("map", path, std::strerror(errno));
  return MappedFile({static_cast<const std::byte*>(memory), size});
}

}  // namespace spillway
