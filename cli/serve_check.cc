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
#include <tl/expected.hpp>

#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "common/check.h"
#include "common/cores.h"
#include "common/unique_fd.h"
#include "gateway/exposure.h"
#include "kernels/make_backend.h"
#include "text/utf8.h"

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

// A name that means nothing is not: listening will fail and say why, or judge what the name means by then.
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

uint32_t threads_fixed(const Options& options, Role role) {
  const uint32_t of_role = role == Role::kPrefill ? options.prefill_threads : options.decode_threads;
  return of_role > 0 ? of_role : options.threads;
}

uint32_t threads_per_node(const Options& options, Role role) {
  if (const uint32_t fixed = threads_fixed(options, role); fixed > 0) return fixed;
  // Prefill and decode rarely peak together, so each role may use every core; nodes of one role share them.
  return std::clamp(available_cores() / std::max(options.prefill, options.decode), 1u, kBackendThreadsMax);
}

void check_address(const Options& options) {
  const auto cannot = [&](const char* reason) {
    return SetupError(
        fmt::format("cannot listen on {}:{}: {}. Choose another --host or --port; --port 0 takes any free one",
                    options.host, options.port, reason));
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
  if (options.host.empty()) throw SetupError(std::string(kEmptyHost));
  const std::string fault = exposure_fault(options.host, !options.api_key_file.empty(), !options.tls_cert.empty());
  if (!fault.empty() && !options.insecure && reachable_from_outside(options)) throw SetupError(fault);
}

void check_can_make(const std::string& path) {
  std::filesystem::path folder = std::filesystem::absolute(path).parent_path();
  std::error_code error;
  while (!std::filesystem::exists(folder, error) && folder.has_relative_path()) folder = folder.parent_path();
  if (!std::filesystem::is_directory(folder, error) || ::access(folder.c_str(), W_OK | X_OK) != 0)
    throw SetupError(fmt::format("cannot make {}: {} is not a folder that can be written", path, folder.string()));
}

std::string model_name_of_file(const Options& options) {
  std::string stem = std::filesystem::path(options.model).stem().string();
  if (stem.empty() || valid_utf8_prefix(stem) != stem.size())
    throw SetupError(
        "the model file's name is not UTF-8 text, so no client could ask for it: give --served-model-name");
  return stem;
}

void check_served_model(const Options& options) {
  const auto names_it = [](const std::string& name) { return name != "*"; };
  if (std::ranges::none_of(options.served_names, names_it)) (void)model_name_of_file(options);
  const ModelFile file(options.model);
  check_memory(options, planned_model(file.file(), file.config()));
}

}  // namespace spillway
