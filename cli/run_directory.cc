#include "cli/run_directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <optional>
#include <string_view>

#include "common/check.h"
#include "common/log.h"

namespace spillway {

namespace {

constexpr size_t kSocketNameMax = sizeof "/bulk-4194304-0123456789abcdef.sock" - 1;  // the longest there (ShmListener)
constexpr size_t kPathMax = 107 - kSocketNameMax;                                    // unix(7)

constexpr const char* kLock = "lock";
constexpr int kAttempts = 8;  // another start may take a new folder for abandoned before it has its lock
constexpr std::string_view kNamePrefix = "spillway-";
constexpr size_t kNameLength = kNamePrefix.size() + 6;

std::vector<std::string> parents() {
  std::vector<std::string> found;
  if (const char* const runtime = std::getenv("XDG_RUNTIME_DIR"); runtime != nullptr && *runtime != '\0')
    found.emplace_back(runtime);
  found.emplace_back("/tmp");
  return found;
}

// An abandoned folder, held open, with its lock: nobody moves in while we have it.
struct Abandoned {
  UniqueFd folder, lock;
};

// Anybody may put anything into /tmp: only what is a folder of this user, with a plain lock file of this user, and
// nobody's lock on it, counts. Nothing is followed, and no process id is believed.
std::optional<Abandoned> abandoned(const std::string& path) {
  struct stat facts {};
  const auto ours = [&](const UniqueFd& fd, mode_t type) {
    return fd && ::fstat(fd.get(), &facts) == 0 && (facts.st_mode & S_IFMT) == type && facts.st_uid == ::geteuid();
  };
  Abandoned found{UniqueFd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)), {}};
  if (!ours(found.folder, S_IFDIR)) return std::nullopt;
  found.lock = UniqueFd(::openat(found.folder.get(), kLock, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!ours(found.lock, S_IFREG) || ::flock(found.lock.get(), LOCK_EX | LOCK_NB) != 0) return std::nullopt;
  return found;
}

// Not recursive: what a run makes there is flat, and anything else keeps the folder.
bool remove_folder(const std::string& path, const Abandoned& found) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
    struct stat facts {};
    const std::string name = entry.path().filename().string();
    if (::fstatat(found.folder.get(), name.c_str(), &facts, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(facts.st_mode))
      ::unlinkat(found.folder.get(), name.c_str(), 0);
  }
  ::unlinkat(found.folder.get(), kLock, 0);
  return ::rmdir(path.c_str()) == 0;
}

std::vector<std::string> run_folders() {
  std::vector<std::string> folders;
  for (const std::string& parent : parents()) {
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(parent, error)) {
      const std::string name = entry.path().filename().string();
      if (name.starts_with(kNamePrefix) && name.size() == kNameLength) folders.push_back(entry.path().string());
    }
  }
  return folders;
}

}  // namespace

RunDirectory::RunDirectory() {
  for (const std::string& folder : remove_orphaned_run_folders())
    spdlog::info("removed the folder of a run that ended without it: {}", folder);
  for (const std::string& parent : parents()) {
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
      path_ = parent + "/spillway-XXXXXX";
      if (path_.size() > kPathMax || ::mkdtemp(path_.data()) == nullptr) break;
      lock_ = UniqueFd(::open((path_ + "/" + kLock).c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
      struct stat facts {};
      if (lock_ && ::flock(lock_.get(), LOCK_EX) == 0 && ::fstat(lock_.get(), &facts) == 0 && facts.st_nlink > 0)
        return;
    }
  }
  throw SetupError(fmt::format("cannot make a run folder {}: {}", path_, std::strerror(errno)));
}

RunDirectory::~RunDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string gateway_endpoint(const Options& options, const RunDirectory& run) {
  return options.gateway_endpoints.empty() ? run.gateway_endpoint() : options.gateway_endpoints.front();
}

std::vector<std::string> orphaned_run_folders() {
  std::vector<std::string> orphans = run_folders();
  std::erase_if(orphans, [](const std::string& path) { return !abandoned(path); });
  return orphans;
}

std::vector<std::string> remove_orphaned_run_folders() {
  std::vector<std::string> gone = run_folders();
  std::erase_if(gone, [](const std::string& path) {
    const std::optional<Abandoned> found = abandoned(path);
    return !found || !remove_folder(path, *found);
  });
  return gone;
}

std::vector<std::string> node_arguments(const Options& options, std::string_view role, uint32_t index,
                                        const RunDirectory& run) {
  std::vector<std::string> arguments{std::string(role)};
  const auto add = [&](const char* flag, std::string value) {
    arguments.insert(arguments.end(), {flag, std::move(value)});
  };
  add("--model", options.model);
  add("--gateway", gateway_endpoint(options, run));
  add("--run-dir", run.path());
  add("--name", fmt::format("{} {}", role, index));
  add("--threads", std::to_string(options.threads));
  if (options.threads_max > 0) add("--threads-max", std::to_string(options.threads_max));
  if (!options.cpus.empty()) add("--cpus", options.cpus);
  add("--isa", options.isa);
  add("--activations", options.activations);
  add("--max-model-len", std::to_string(options.max_model_len));
  add("--kv-dtype", options.kv_dtype);
  add("--device-memory", std::to_string(options.device_memory));
  add("--chunk-tokens", std::to_string(options.chunk_tokens));
  add("--max-sequences", std::to_string(options.max_sequences));
  if (role == "decode") add("--growth-margin", std::to_string(options.growth_margin));
  if (role == "decode" && options.prefill == 0) arguments.emplace_back("--colocate");
  add("--drain-timeout", std::to_string(options.drain_timeout_s));
  add("--log-level", options.log_level);
  add("--log-format", options.log_format);
  return arguments;
}

}  // namespace spillway
