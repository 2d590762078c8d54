#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/result.h"
#include "common/unique_fd.h"

// How two ShmTransports of one host find each other and pass their rings. Nothing here blocks.
namespace spillway {

struct ShmEndpoint {
  std::array<std::byte, 16> token{};  // random; whoever connects must present it
  std::string path;                   // of the AF_UNIX socket
  // Version byte, token, path. At most 125 bytes.
  std::vector<std::byte> bytes() const;
  static Result<ShmEndpoint> parse(std::span<const std::byte> bytes);
};

// The socket on which an endpoint is reached; its file is removed at the end. Files in the same directory whose process
// has died are removed at the start.
class ShmListener {
 public:
  // Makes the directory (0700). Throws SetupError naming the path when it is not ours alone or cannot be used.
  explicit ShmListener(const std::string& directory);
  ShmListener(const ShmListener&) = delete;
  ShmListener& operator=(const ShmListener&) = delete;
  ~ShmListener();
  const ShmEndpoint& endpoint() const { return endpoint_; }
  int fd() const { return socket_.get(); }
  // The next connection of a process of this user; empty when there is none.
  UniqueFd accept();

 private:
  ShmEndpoint endpoint_;
  UniqueFd socket_;
};

// First packet both ways on a connection: the receiver's token, the sender's endpoint, and the ring it will write.
struct ShmGreeting {
  std::array<std::byte, 16> token{};
  std::vector<std::byte> endpoint;
  UniqueFd ring;
};

// An empty descriptor: the backlog is full, try again later. kPeerLost: nobody listens there.
Result<UniqueFd> dial_shm(const ShmEndpoint& endpoint);
// False: the connection cannot take it.
[[nodiscard]] bool send_greeting(int socket, const ShmEndpoint& to, std::span<const std::byte> own_endpoint, int ring);
// Nothing: not here yet. kPeerLost: hung up. kCorrupt: not a greeting.
Result<std::optional<ShmGreeting>> receive_greeting(int socket);

}  // namespace spillway
