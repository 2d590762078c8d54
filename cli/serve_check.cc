#include "cli/serve_check.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <tl/expected.hpp>

#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "common/check.h"
#include "common/unique_fd.h"

namespace spillway {
namespace {

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

// Otherwise the error of getaddrinfo.
tl::expected<AddressList, int> resolve(const Options& options) {
  addrinfo hints{};
  hints.ai_flags = AI_PASSIVE;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(options.host.c_str(), std::to_string(options.port).c_str(), &hints, &found);
  if (error != 0) return tl::unexpected(error);
  return AddressList(found, &::freeaddrinfo);
}

bool is_loopback(const sockaddr& address) {
  if (address.sa_family == AF_INET)
    return ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24 == 127;
  return address.sa_family == AF_INET6 &&
         IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6&>(address).sin6_addr);
}

// A name that means nothing is not: listening will fail, and say why.
bool reachable_from_outside(const Options& options) {
  const auto found = resolve(options);
  if (!found) return false;
  for (const addrinfo* one = found->get(); one != nullptr; one = one->ai_next)
    if (!is_loopback(*one->ai_addr)) return true;
  return false;
}

}  // namespace

void check_shared_memory() {
  const UniqueFd fd(::memfd_create("spillway-check", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw SetupError(fmt::format("KV transfer needs memfd_create, which fails: {}", std::strerror(errno)));
}

uint32_t threads_per_node(const Options& options) {
  if (options.threads > 0) return options.threads;
  // Prefill and decode rarely peak together, so each role may use every core; nodes of one role share them.
  const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
  return std::max(1u, cores / std::max(options.prefill, options.decode));
}

void check_address(const Options& options) {
  const auto cannot = [&](const char* reason) {
    return SetupError(
        fmt::format("cannot listen on {}:{}: {}. Choose another --port or --host", options.host, options.port, reason));
  };
  const auto found = resolve(options);
  if (!found) throw cannot(::gai_strerror(found.error()));
  const UniqueFd fd(::socket((*found)->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;  // as the gateway: connections that ended a moment ago do not hold the port
  if (!fd || ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
      ::bind(fd.get(), (*found)->ai_addr, (*found)->ai_addrlen) != 0)
    throw cannot(std::strerror(errno));
}

void check_exposure(const Options& options) {
  const bool keys = !options.api_key_file.empty(), tls = !options.tls_cert.empty();
  if ((keys && tls) || options.insecure || !reachable_from_outside(options)) return;
  throw SetupError(fmt::format(
      "--host {} is reachable from other machines, and {}: give {}{}{}, or listen on 127.0.0.1, or say --insecure",
      options.host,
      keys  ? "without TLS their keys and prompts would be readable on the way"
      : tls ? "nobody would be asked for a key"
            : "nobody would be asked for a key and prompts would be readable on the way (no TLS)",
      keys ? "" : "--api-key-file", keys || tls ? "" : " and ", tls ? "" : "--tls-cert with --tls-key"));
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
