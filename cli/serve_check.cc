#include "cli/serve_check.h"

#include <fmt/format.h>
#include <netdb.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>

#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "common/check.h"
#include "common/cores.h"
#include "common/unique_fd.h"

namespace spillway {

void check_shared_memory() {
  const UniqueFd fd(::memfd_create("spillway-check", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw SetupError(fmt::format("KV transfer needs memfd_create, which fails: {}", std::strerror(errno)));
}

uint32_t threads_per_node(const Options& options, Role role) {
  const uint32_t of_role = role == Role::kPrefill ? options.prefill_threads : options.decode_threads;
  if (of_role > 0) return of_role;
  if (options.threads > 0) return options.threads;
  // Prefill and decode rarely peak together, so each role may use every core; nodes of one role share them.
  return std::max(1u, available_cores() / std::max(options.prefill, options.decode));
}

void check_address(const Options& options) {
  const auto cannot = [&](const char* reason) {
    return SetupError(
        fmt::format("cannot listen on {}:{}: {}. Choose another --host or --port; --port 0 takes any free one",
                    options.host, options.port, reason));
  };
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &found);
  if (error != 0) throw cannot(::gai_strerror(error));
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  const UniqueFd fd(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // as the gateway: connections that ended a moment ago do not hold the port
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd.get(), found->ai_addr, found->ai_addrlen) != 0)
    throw cannot(std::strerror(errno));
}

void check_can_make(const std::string& path) {
  std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  if (!std::filesystem::is_directory(folder, error) || ::access(folder.c_str(), W_OK | X_OK) != 0)
    throw SetupError(fmt::format("cannot make {}: {} is not a folder that can be written", path, folder.string()));
}

void check_served_model(const Options& options) {
  const ModelFile file(options.model);
  check_memory(options, file.config());
}

}  // namespace spillway
