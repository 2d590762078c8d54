#include "transfer/shm_handshake.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <filesystem>

#include "common/check.h"

namespace spillway {
namespace {

constexpr std::byte kEndpointVersion{1};
constexpr size_t kPathBytesMax = sizeof(sockaddr_un::sun_path) - 1;
constexpr std::string_view kSocketPrefix = "bulk-", kSocketSuffix = ".sock";
constexpr std::array<char, 8> kGreetingMagic = {'S', 'P', 'W', 'S', 'H', 'M', '0', '1'};
constexpr int kBacklog = 64;

struct GreetingPacket {
  std::array<char, 8> magic = kGreetingMagic;
  std::array<std::byte, 16> token{};
  uint32_t endpoint_bytes = 0;
  std::array<std::byte, 1 + 16 + kPathBytesMax> endpoint{};
};

sockaddr_un address_of(const std::string& path) {
  CHECK(path.size() <= kPathBytesMax);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

int try_connect(int socket, const std::string& path) {
  const sockaddr_un address = address_of(path);
  return ::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0 ? 0 : errno;
}

UniqueFd make_socket() { return UniqueFd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)); }

// "bulk-<pid>-<random>.sock" -> pid; 0 for any other name.
pid_t owner_of(std::string_view name) {
  if (!name.starts_with(kSocketPrefix) || !name.ends_with(kSocketSuffix)) return 0;
  name.remove_prefix(kSocketPrefix.size());
  pid_t pid = 0;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
  return error == std::errc{} && end < name.data() + name.size() && *end == '-' && pid > 0 ? pid : 0;
}

// The process must be gone and nobody listen: a pid of another pid namespace alone proves nothing.
void remove_stale_sockets(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string path = entry.path().string();
    const pid_t owner = owner_of(entry.path().filename().string());
    if (owner == 0 || path.size() > kPathBytesMax || ::kill(owner, 0) == 0 || errno != ESRCH) continue;
    const UniqueFd probe = make_socket();
    if (probe && try_connect(probe.get(), path) == ECONNREFUSED) ::unlink(path.c_str());
  }
}

}  // namespace

void use_socket_directory(const std::string& directory) {
  if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST)
    throw SetupError(fmt::format("cannot make the socket directory {}: {}", directory, std::strerror(errno)));
  struct stat facts {};
  if (::lstat(directory.c_str(), &facts) != 0 || !S_ISDIR(facts.st_mode))
    throw SetupError(fmt::format("{} is not a directory; name another one for sockets", directory));
  if (facts.st_uid != ::geteuid() || (facts.st_mode & 077) != 0)
    throw SetupError(
        fmt::format("the socket directory {} is open to others (owner {}, mode {:o}); make it yours and 0700",
                    directory, facts.st_uid, facts.st_mode & 0777));
}

std::vector<std::byte> ShmEndpoint::bytes() const {
  std::vector<std::byte> out(1 + token.size() + path.size());
  out[0] = kEndpointVersion;
  std::ranges::copy(token, out.begin() + 1);
  std::ranges::copy(std::as_bytes(std::span(path)), out.begin() + 1 + static_cast<ptrdiff_t>(token.size()));
  return out;
}

Result<ShmEndpoint> ShmEndpoint::parse(std::span<const std::byte> bytes) {
  ShmEndpoint endpoint;
  const size_t fixed = 1 + endpoint.token.size();
  if (bytes.size() <= fixed || bytes.size() > fixed + kPathBytesMax || bytes[0] != kEndpointVersion)
    return fail(ErrorCode::kCorrupt,
                fmt::format("{} bytes are no shared memory endpoint of this version", bytes.size()));
  std::copy_n(bytes.begin() + 1, endpoint.token.size(), endpoint.token.begin());
  endpoint.path.assign(reinterpret_cast<const char*>(bytes.data()) + fixed, bytes.size() - fixed);
  if (endpoint.path[0] != '/' || endpoint.path.find('\0') != std::string::npos)
    return fail(ErrorCode::kCorrupt, "a shared memory endpoint must be an absolute path");
  return endpoint;
}

ShmListener::ShmListener(const std::string& directory) : socket_(make_socket()) {
  use_socket_directory(directory);
  std::error_code error;
  const std::string absolute = std::filesystem::absolute(directory, error).string();
  remove_stale_sockets(absolute);
  uint64_t name = 0;
  if (::getrandom(endpoint_.token.data(), endpoint_.token.size(), 0) != static_cast<ssize_t>(endpoint_.token.size()) ||
      ::getrandom(&name, sizeof name, 0) != sizeof name)
    throw SetupError("the kernel gives no random bytes");
  endpoint_.path = fmt::format("{}/{}{}-{:016x}{}", absolute, kSocketPrefix, ::getpid(), name, kSocketSuffix);
  if (endpoint_.path.size() > kPathBytesMax)
    throw SetupError(fmt::format("the socket path {} has {} bytes, at most {} are possible: use a shorter directory",
                                 endpoint_.path, endpoint_.path.size(), kPathBytesMax));
  const sockaddr_un address = address_of(endpoint_.path);
  if (!socket_ || ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(socket_.get(), kBacklog) != 0)
    throw SetupError(fmt::format("cannot listen on {}: {}", endpoint_.path, std::strerror(errno)));
}

ShmListener::~ShmListener() { ::unlink(endpoint_.path.c_str()); }

UniqueFd ShmListener::accept() {
  for (;;) {
    UniqueFd socket(::accept4(socket_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!socket) return socket;
    ucred peer{};
    socklen_t bytes = sizeof peer;
    if (::getsockopt(socket.get(), SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 && peer.uid == ::geteuid())
      return socket;
  }
}

Result<UniqueFd> dial_shm(const ShmEndpoint& endpoint) {
  UniqueFd socket = make_socket();
  if (!socket) return fail(ErrorCode::kNoSpace, fmt::format("cannot make a socket: {}", std::strerror(errno)));
  const int error = try_connect(socket.get(), endpoint.path);
  if (error == 0) return socket;
  if (error == EAGAIN) return UniqueFd();
  return fail(ErrorCode::kPeerLost, fmt::format("cannot reach {}: {}", endpoint.path, std::strerror(error)));
}

bool send_greeting(int socket, const ShmEndpoint& to, std::span<const std::byte> own_endpoint, int ring) {
  GreetingPacket packet;
  CHECK(own_endpoint.size() <= packet.endpoint.size());
  packet.token = to.token;
  packet.endpoint_bytes = checked_cast<uint32_t>(own_endpoint.size());
  std::copy(own_endpoint.begin(), own_endpoint.end(), packet.endpoint.begin());
  iovec part{&packet, sizeof packet};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(rights), &ring, sizeof ring);
  return ::sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) == static_cast<ssize_t>(sizeof packet);
}

Result<std::optional<ShmGreeting>> receive_greeting(int socket) {
  GreetingPacket packet;
  iovec part{&packet, sizeof packet};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t bytes = ::recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) return std::nullopt;
  if (bytes <= 0) return fail(ErrorCode::kPeerLost, "the peer hung up during the greeting");
  ShmGreeting greeting;
  size_t descriptors = 0;  // all are taken, so that none leaks: alignment leaves room for a second one
  const cmsghdr* const rights = CMSG_FIRSTHDR(&message);
  if (rights != nullptr && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
    for (; CMSG_LEN((descriptors + 1) * sizeof(int)) <= rights->cmsg_len; ++descriptors) {
      int descriptor = -1;
      std::memcpy(&descriptor, CMSG_DATA(rights) + descriptors * sizeof(int), sizeof descriptor);
      greeting.ring = UniqueFd(descriptor);
    }
  }
  if (bytes != static_cast<ssize_t>(sizeof packet) || (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0 ||
      packet.magic != kGreetingMagic || packet.endpoint_bytes > packet.endpoint.size() || descriptors != 1)
    return fail(ErrorCode::kCorrupt, fmt::format("{} bytes are not a greeting with one ring", bytes));
  greeting.token = packet.token;
  greeting.endpoint.assign(packet.endpoint.begin(), packet.endpoint.begin() + packet.endpoint_bytes);
  return greeting;
}

}  // namespace spillway
