#include "cli/trouble_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <sstream>

#include "common/check.h"

namespace spillway {
namespace {

constexpr size_t kBytesMax = 4096;

UniqueFd datagram_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)); }

sockaddr_un address_of(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  CHECK(path.size() < sizeof address.sun_path);
  std::memcpy(address.sun_path, path.c_str(), path.size());
  return address;
}

}  // namespace

void tell_trouble(const std::string& path, const std::string& lines) {
  if (path.empty()) return;
  const UniqueFd fd = datagram_socket();
  const sockaddr_un address = address_of(path);
  // Nobody there, or no room: it is said again while the trouble lasts.
  (void)::sendto(fd.get(), lines.data(), std::min(lines.size(), kBytesMax), 0,
                 reinterpret_cast<const sockaddr*>(&address), sizeof address);
}

TroubleSocket::TroubleSocket(const std::string& path) {
  if (path.empty()) return;
  if (path.size() >= sizeof(sockaddr_un::sun_path))
    throw SetupError(fmt::format("--status-socket {} is longer than a socket's name may be", path));
  fd_ = datagram_socket();
  ::unlink(path.c_str());  // of the gateway before
  const sockaddr_un address = address_of(path);
  if (!fd_ || ::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    throw SetupError(fmt::format("cannot bind --status-socket {}: {}", path, std::strerror(errno)));
}

const std::vector<std::string>& TroubleSocket::lines() {
  std::array<char, kBytesMax> bytes;
  for (ssize_t size = 0; fd_ && (size = ::recv(fd_.get(), bytes.data(), bytes.size(), 0)) >= 0;) {
    lines_.clear();
    std::istringstream text(std::string(bytes.data(), static_cast<size_t>(size)));
    for (std::string line; std::getline(text, line);) lines_.push_back(line);
  }
  return lines_;
}

}  // namespace spillway
