#include "common/leftover_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <string_view>

#include "common/unique_fd.h"

namespace spillway {
namespace {

// Calls `visit` for each while it holds its lock.
template <class Visit>
void for_each_leftover(const std::string& of, Visit&& visit) {
  const std::filesystem::path path(of);
  std::string name = path.filename().string();
  name.append(kUnfinishedSuffix);
  const size_t known = name.find_last_not_of('X') + 1;  // mkstemp() makes up the rest
  const std::filesystem::path folder = path.has_parent_path() ? path.parent_path() : ".";
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string other = entry.path().filename().string();
    if (other.size() != name.size() || other.compare(0, known, name, 0, known) != 0) continue;
    const UniqueFd file(::open(entry.path().c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
    struct stat facts {};
    if (file && ::fstat(file.get(), &facts) == 0 && S_ISREG(facts.st_mode) && facts.st_uid == ::geteuid() &&
        ::flock(file.get(), LOCK_EX | LOCK_NB) == 0)
      visit(entry.path().string());
  }
}

}  // namespace

std::vector<std::string> leftover_files(const std::string& path) {
  std::vector<std::string> found;
  for_each_leftover(path, [&](const std::string& file) { found.push_back(file); });
  return found;
}

void remove_leftover_files(const std::string& path) {
  for_each_leftover(path, [](const std::string& file) { ::unlink(file.c_str()); });
}

// A writer has it open as long as it lives, and nobody else has it open for writing.
void remove_own_unfinished_files() {
  const std::string_view known = kUnfinishedSuffix.substr(0, kUnfinishedSuffix.find_last_not_of('X') + 1);
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd", error)) {
    const std::string path = std::filesystem::read_symlink(entry.path(), error).string();
    if (error || path.size() < kUnfinishedSuffix.size()) continue;
    const bool unfinished = path.compare(path.size() - kUnfinishedSuffix.size(), known.size(), known) == 0;
    const int flags = ::fcntl(std::stoi(entry.path().filename().string()), F_GETFL);
    if (unfinished && flags >= 0 && (flags & O_ACCMODE) != O_RDONLY) ::unlink(path.c_str());
  }
}

}  // namespace spillway
