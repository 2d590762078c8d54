#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "common/result.h"
#include "transfer/messages.h"

namespace spillway {

struct PeerUp {  // both Hellos were accepted
  PeerId peer{};
  Hello hello;
};
struct PeerMessage {  // never a Hello or Heartbeat
  PeerId peer{};
  Message message;
};
// Its last event. A later connection of the same process is a new PeerId, whose PeerUp may come before this one's
// PeerGone or after it: who holds state by BootId must stand either order.
struct PeerGone {
  PeerId peer{};
  std::string reason;
};
struct DrainRequested {};  // to every role's core: finish what is there, take nothing new
// Effects that every node core may ask for.
struct SendMessage {
  PeerId to{};
  Message message;
};
struct ConnectPeer {  // begin a control connection
  std::string endpoint;
};

using ControlEvent = std::variant<PeerUp, PeerMessage, PeerGone>;

// Processes that one may be connected to: on the control channel, in a node's table and by bulk links alike.
inline constexpr uint32_t kPeersMax = 64;

struct ControlConfig {
  std::string bind_endpoint;  // ipc://... or tcp://127.0.0.1:...; empty: accepts nobody
  uint32_t peers_max = kPeersMax;
  Duration heartbeat_interval = std::chrono::milliseconds(250);
  Duration silence_max = std::chrono::milliseconds(3000);  // then the peer is lost
  // A kHome endpoint that refused us is asked again after the first, after twice as long each time up to the second.
  Duration refusal_pause = std::chrono::seconds(1), refusal_pause_max = std::chrono::seconds(30);
  uint32_t messages_queued_max = 4096;  // per peer, each way (ZeroMQ high-water marks)
};

// Control messages between processes over ZeroMQ: one ROUTER that accepts, one DEALER per peer we connect to. Owns its
// context and sockets; loop thread only. Nothing here blocks. The connector sends Hello until it is answered, the
// acceptor answers with its own; another protocol version, ModelId or canary gets a HelloRefused that names both. A
// later HelloRefused of its role's core (a node table) ends a connection in the same way. Messages whose boot id is not
// the peer's present one are dropped.
class ControlChannel {
 public:
  // Throws SetupError when the endpoint cannot be bound (says by whom it may be held).
  ControlChannel(const ControlConfig& config, Hello self);
  ~ControlChannel();

  // Begins a connection; ends in PeerUp, or keeps trying (also after a PeerGone). Connecting twice to an endpoint is
  // one connection; what is not an endpoint is logged and forgotten. Two processes that connect to each other are two
  // peers.
  // One that refused us is asked again after a pause where it is kHome, and at the next connect() where it is kOther.
  enum class Endpoint : uint8_t { kHome, kOther };
  void connect(const std::string& endpoint, Endpoint kind = Endpoint::kHome);
  enum class SendStatus : uint8_t { kSent, kPeerLost };  // kPeerLost: PeerGone follows at the next receive()
  SendStatus send(PeerId peer, const Message& message);
  // Takes what has arrived (at most `events_max`) and sends due heartbeats; once all that arrived is taken, notices
  // hang-ups and silence and makes connections.
  void receive(TimePoint now, std::vector<ControlEvent>& events, size_t events_max);
  // When heartbeats, silence or work left over need the next receive(): also right after a send(), which may have
  // swallowed an edge of fds().
  TimePoint next_deadline() const;
  // Descriptors to poll for input (edge-triggered: call receive() until it gives nothing before sleeping).
  std::vector<int> fds() const;
  // Why there is nobody to work for: all kHome endpoints refused us when they were last asked. Empty while one did not,
  // be it only that it is not there yet.
  std::string refused_reason() const;
  struct Counts {        // messages dropped since start
    uint64_t junk = 0;   // not decodable, or from nobody known
    uint64_t stale = 0;  // boot id other than the peer's present one
  };
  Counts counts() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace spillway
