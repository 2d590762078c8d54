#include "cli/secret_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>

#include "cli/private_file.h"
#include "cli/serve_check.h"
#include "common/check.h"
#include "common/leftover_files.h"
#include "common/unique_fd.h"

namespace spillway {
namespace {

std::string default_path() {
  if (const char* const state = std::getenv("XDG_STATE_HOME"); state != nullptr && *state != '\0')
    return std::string(state) + "/spillway/secret";
  if (const char* const home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::string(home) + "/.local/state/spillway/secret";
  throw SetupError("neither HOME nor XDG_STATE_HOME is set: name a file with --secret-file");
}

std::optional<Secret> read_secret(const std::string& path) {
  const std::optional<UniqueFd> file = open_private_file(path, "secret", Links::kRefused);
  if (!file) return std::nullopt;
  struct stat status {};
  CHECK(::fstat(file->get(), &status) == 0);
  Secret secret{};
  std::byte extra{};
  if (::read(file->get(), secret.data(), secret.size()) != static_cast<ssize_t>(secret.size()) ||
      ::read(file->get(), &extra, 1) != 0)
    throw SetupError(
        fmt::format("secret file {} has {} bytes, expected {}: delete it to make a new one (cached blocks are lost)",
                    path, status.st_size, secret.size()));
  return secret;
}

void make_secret(const std::string& path) {
  std::error_code error;
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  if (!folder.empty()) std::filesystem::create_directories(folder, error);
  UniqueFd file;
  std::string temporary;
  struct stat facts {};
  while (facts.st_nlink == 0) {  // someone may have taken it for a leftover before the lock
    temporary = path + std::string(kUnfinishedSuffix);
    file = UniqueFd(::mkostemp(temporary.data(), O_CLOEXEC));  // mode 0600
    if (!file || ::flock(file.get(), LOCK_EX) != 0 || ::fstat(file.get(), &facts) != 0) break;
  }
  if (!file)
    throw SetupError(
        fmt::format("cannot make secret file {}: {}; name another with --secret-file", path, std::strerror(errno)));
  Secret secret{};
  const bool written = ::getrandom(secret.data(), secret.size(), 0) == static_cast<ssize_t>(secret.size()) &&
                       ::write(file.get(), secret.data(), secret.size()) == static_cast<ssize_t>(secret.size()) &&
                       ::fsync(file.get()) == 0;
  // link() fails when another first start was quicker: then its secret is the one.
  const bool linked = written && (::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const int cause = errno;
  ::unlink(temporary.c_str());
  if (!linked) throw SetupError(fmt::format("cannot make secret file {}: {}", path, std::strerror(cause)));
}

}  // namespace

Secret read_or_make_secret(std::string path) {
  if (path.empty()) path = default_path();
  remove_leftover_files(path);
  if (const std::optional<Secret> secret = read_secret(path)) return *secret;
  make_secret(path);
  if (const std::optional<Secret> secret = read_secret(path)) return *secret;
  throw SetupError(fmt::format("secret file {} vanished while being made", path));
}

std::vector<std::string> secret_leftovers(std::string path) {
  return leftover_files(path.empty() ? default_path() : path);
}

void check_secret(std::string path) {
  if (path.empty()) path = default_path();
  if (!read_secret(path)) check_can_make(path);
}

}  // namespace spillway
