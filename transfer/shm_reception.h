#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/clock.h"
#include "common/unique_fd.h"
#include "transfer/shm_handshake.h"

namespace spillway {

// A peer that dialled us and proved that it knows our token.
struct ShmCaller {
  UniqueFd socket;
  ShmGreeting greeting;
};

// Where the peers of one ShmTransport arrive: connections that no link has claimed yet, each with a deadline. Transfer
// thread; watches its descriptors through the owner's epoll.
class ShmReception {
 public:
  // `epoll` is borrowed. Throws SetupError when the socket cannot be made.
  ShmReception(const std::string& directory, uint32_t callers_max, Duration patience, int epoll);
  const ShmEndpoint& endpoint() const { return listener_.endpoint(); }
  // Accepts and reads what has arrived; forgets who hung up or sent nonsense.
  void look(TimePoint now);
  // The caller with this endpoint, if it is here.
  std::optional<ShmCaller> take(std::span<const std::byte> endpoint);
  void expire(TimePoint now);
  bool empty() const { return callers_.empty(); }

 private:
  struct Caller {
    UniqueFd socket;
    TimePoint deadline = kNever;
    std::optional<ShmGreeting> greeting;
  };
  bool read(Caller& caller) const;

  const uint32_t callers_max_;
  const Duration patience_;
  const int epoll_;
  ShmListener listener_;
  std::vector<Caller> callers_;  // at most callers_max
};

// Adds a descriptor to an epoll, for input and hang-up; its events carry the descriptor.
void watch_input(int epoll, int fd);

}  // namespace spillway
