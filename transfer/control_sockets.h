#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>
#include <zmq.hpp>

#include "common/result.h"

namespace spillway {

enum class DealerId : uint64_t {};  // one outgoing connection

// The ZeroMQ sockets of one ControlChannel: a ROUTER that accepts, a DEALER per outgoing connection, a monitor beside
// each for hang-ups. Knows bytes, not messages. Nothing blocks; what cannot be sent now is not sent. One thread.
class ControlSockets {
 public:
  // Where a message came from: a DEALER of ours, or an identity that our ROUTER drew for an accepted connection.
  struct Route {
    std::optional<DealerId> dealer;
    std::string identity;
    auto operator<=>(const Route&) const = default;
  };
  struct Received {
    Route route;
    zmq::message_t body;  // empty for anything that is not one part: junk
  };
  // Empty `bind_endpoint`: accepts nobody. Throws SetupError when it cannot be bound, naming the holder where known.
  ControlSockets(const std::string& bind_endpoint, uint32_t messages_queued_max);

  // kInvalidArgument: no local endpoint; kNoSpace: no more sockets now. The connection is made, and made again, in the
  // background.
  Result<DealerId> dial(const std::string& endpoint);
  void hang_up(DealerId dealer);
  // False: no connection, or its queue is at the high-water mark.
  [[nodiscard]] bool send(const Route& route, std::span<const std::byte> body);
  // The next message, from all sockets in turn; nothing when all are drained.
  std::optional<Received> receive();
  struct HangUps {
    std::vector<DealerId> dealers;
    bool accepted = false;  // one or more; which ones shows when sending to them
  };
  HangUps take_hang_ups();
  std::vector<int> fds() const;  // edge-triggered: only after receive() and take_hang_ups() gave nothing

 private:
  struct Watched {
    Watched(zmq::socket_t watched, zmq::socket_t events) : socket(std::move(watched)), monitor(std::move(events)) {}
    Watched(Watched&&) = default;
    ~Watched();
    zmq::socket_t socket, monitor;
  };
  Watched make(zmq::socket_type type);  // throws zmq::error_t: no more sockets
  static std::optional<zmq::message_t> receive_body(zmq::socket_t& socket, std::string* identity);
  static bool hung_up(zmq::socket_t& monitor);

  const int queued_max_;
  zmq::context_t context_;
  std::optional<Watched> router_;
  std::map<DealerId, Watched> dealers_;  // one per ControlChannel::connect()
  uint64_t next_dealer_ = 1, next_monitor_ = 1;
  DealerId turn_{};  // the last one that was read
};

}  // namespace spillway
