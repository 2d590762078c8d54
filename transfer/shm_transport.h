#pragma once

#include <memory>
#include <string>

#include "common/clock.h"
#include "transfer/kv_transport.h"

namespace spillway {

struct ShmConfig {
  std::string socket_directory;  // AF_UNIX sockets through which ring descriptors (memfd) are passed; made 0700
  uint32_t peers_max = 0;
  size_t ring_bytes = size_t{4} << 20;  // memory of one direction of one peer; whole pages, holds the largest frame
  size_t frame_bytes_max = 0;           // largest payload
  Duration establish_max = std::chrono::seconds(5);  // from connect() to PeerReady, else PeerLost
};

// ring_bytes for frames of so many bytes: eight of them, for with 2 to 16 MiB and small frames bench_transfer finds no
// difference; at least 4 MiB, at most kShmRingBytesMax.
size_t ring_bytes_for(size_t frame_bytes_max);

// KvTransport between processes of one host and user: per peer and direction one memfd ring, sealed against shrinking
// and growing, its descriptor passed over an AF_UNIX SOCK_SEQPACKET connection. The side with the lower endpoint bytes
// dials, the other waits for it, so both must connect(); each proves by a random token that it was given the other's
// endpoint. The ring is writable by the peer: counts and headers are loaded once and bounded before use, payload is
// copied first and digested after. Sent comes when the receiver has landed or refused the frame. Doorbells travel over
// the connection too (an eventfd that the peer may switch to blocking could stop our thread); a dead peer is seen as
// its hang-up. Throws SetupError when the socket cannot be made or the ring cannot hold a frame.
std::unique_ptr<KvTransport> make_shm_transport(const ShmConfig& config);

// Makes `directory` (0700) where it is missing. Throws SetupError unless it is the caller's alone. make_shm_transport()
// does it too: call it before something that takes long.
void use_socket_directory(const std::string& directory);

}  // namespace spillway
