#include "cli/private_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/check.h"

namespace spillway {

std::optional<UniqueFd> open_private_file(const std::string& path, std::string_view what, Links links) {
  const int follow = links == Links::kFollowed ? 0 : O_NOFOLLOW;
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | follow));  // a FIFO must not hang
  if (!file) {
    if (errno == ENOENT) return std::nullopt;
    throw SetupError(fmt::format("cannot open {} file {}: {}", what, path, std::strerror(errno)));
  }
  struct stat status {};
  CHECK(::fstat(file.get(), &status) == 0);
  if (!S_ISREG(status.st_mode)) throw SetupError(fmt::format("{} file {} is not a plain file", what, path));
  if ((status.st_mode & 077) != 0)
    throw SetupError(
        fmt::format("{} file {} is open to others (mode {:o}): chmod 600 it", what, path, status.st_mode & 0777));
  return file;
}

std::string read_small_file(const UniqueFd& file, const std::string& path, std::string_view what, size_t bytes_max) {
  std::string text(bytes_max + 1, 0);
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t count = ::read(file.get(), text.data() + size, text.size() - size);
    if (count < 0) throw SetupError(fmt::format("cannot read {} file {}: {}", what, path, std::strerror(errno)));
    if (count == 0) break;
    size += static_cast<size_t>(count);
  }
  if (size > bytes_max) throw SetupError(fmt::format("{} file {} is larger than {} bytes", what, path, bytes_max));
  text.resize(size);
  return text;
}

}  // namespace spillway
