#include "transfer/control_channel.h"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "transfer/control_sockets.h"
#include "transfer/message_codec.h"

namespace spillway {
namespace {

using Route = ControlSockets::Route;
constexpr TimePoint kAtOnce = TimePoint::min();
// A hang-up may be reported a moment before sending to that connection fails.
constexpr Duration kProbeDelay = std::chrono::milliseconds(5);
constexpr uint32_t kPauseDoublings = 5;

struct Peer {
  Route route;
  BootId boot{};
  std::string name, control_endpoint;
  TimePoint last_heard = kAtOnce, next_heartbeat = kAtOnce;
};

struct Connection {  // one endpoint that we were told to connect to
  std::optional<DealerId> dealer = {};
  std::optional<PeerId> peer = {};
  TimePoint next_dial = kAtOnce, next_hello = kAtOnce;
  bool hello_sent = false, given_up = false, home = true;
  uint32_t refusals = 0;  // in a row; its present peer may not have refused us yet
  std::string refused_for = {};
};

// Why two processes must not talk; empty if they may.
std::string mismatch(const Hello& theirs, const Hello& ours) {
  if (theirs.protocol_version != ours.protocol_version)
    return fmt::format("\"{}\" speaks protocol version {}, \"{}\" speaks {}: run the same release on both", theirs.name,
                       theirs.protocol_version, ours.name, ours.protocol_version);
  if (theirs.model != ours.model)
    return fmt::format("\"{}\" has model {}, \"{}\" has model {}: give both the same model file", theirs.name,
                       theirs.model.hex(), ours.name, ours.model.hex());
  if (theirs.encoding.numerics == ours.encoding.numerics && theirs.canary != ours.canary)
    return fmt::format(
        "\"{}\" and \"{}\" compute different bits in numerics class {}, canary {:016x} and {:016x}: run "
        "the same release with the same libm on both",
        theirs.name, ours.name, static_cast<unsigned>(ours.encoding.numerics), theirs.canary, ours.canary);
  return {};
}

}  // namespace

struct ControlChannel::State {
  State(const ControlConfig& config_, Hello self_)
      : config(config_), self(std::move(self_)), sockets(config_.bind_endpoint, config_.messages_queued_max) {}

  bool send(const Route& route, const Message& message);
  void gone(PeerId id, const std::string& reason);
  void up(const Route& route, const Hello& hello, TimePoint now);
  void on(const ControlSockets::Received& received, TimePoint now);
  void hang_up(Connection& connection);
  void refused(Connection& connection, const std::string& reason, TimePoint now);
  void on_connected(Connection& connection, const Route& route, Envelope& envelope, TimePoint now);
  void on_accepted(const Route& route, Envelope& envelope, TimePoint now);
  void meet(const Route& route, const Hello& hello, TimePoint now);
  void deliver(PeerId id, Envelope& envelope, TimePoint now);
  void on_hang_ups(TimePoint now);
  void dial_and_greet(TimePoint now);
  void send_heartbeats(TimePoint now);
  void judge_silence(TimePoint now);
  Connection* connection_of(DealerId dealer);

  const ControlConfig config;
  const Hello self;
  ControlSockets sockets;
  std::map<PeerId, Peer> peers;  // accepted: at most peers_max; others: one per connection
  std::map<Route, PeerId> by_route;
  std::map<std::string, Connection> connections;  // one per connect()
  std::deque<ControlEvent> pending;               // one message, and at most one PeerUp and PeerGone per peer
  uint32_t next_peer = 1;
  bool drained = true, said_full = false;
  Counts counts;
};

bool ControlChannel::State::send(const Route& route, const Message& message) {
  drained = false;
  return sockets.send(route, encode_message(self.boot, message));
}

Connection* ControlChannel::State::connection_of(DealerId dealer) {
  const auto found =
      std::ranges::find_if(connections, [&](const auto& entry) { return entry.second.dealer == dealer; });
  return found == connections.end() ? nullptr : &found->second;
}

void ControlChannel::State::gone(PeerId id, const std::string& reason) {
  auto node = peers.extract(id);
  const Peer& peer = node.mapped();
  log_event(spdlog::level::info, "peer gone",
            {{"peer", static_cast<uint32_t>(id)}, {"name", peer.name}, {"reason", reason}});
  by_route.erase(peer.route);
  if (peer.route.dealer) {
    Connection& connection = *connection_of(*peer.route.dealer);
    hang_up(connection);
    connection.refusals = 0;
  }
  pending.push_back(PeerGone{id, reason});
}

void ControlChannel::State::up(const Route& route, const Hello& hello, TimePoint now) {
  const PeerId id{next_peer++};
  log_event(spdlog::level::info, "peer up",
            {{"peer", static_cast<uint32_t>(id)},
             {"name", hello.name},
             {"boot", fmt::format("{:016x}", static_cast<uint64_t>(hello.boot))}});
  peers[id] = {route, hello.boot, hello.name, hello.control_endpoint, now, now + config.heartbeat_interval};
  by_route[route] = id;
  if (route.dealer) connection_of(*route.dealer)->peer = id;
  pending.push_back(PeerUp{id, hello});
}

void ControlChannel::State::on(const ControlSockets::Received& received, TimePoint now) {
  const auto* const bytes = static_cast<const std::byte*>(received.body.data());
  Result<Envelope> envelope = decode_message({bytes, received.body.size()});
  if (!envelope) {
    ++counts.junk;
    log_event(spdlog::level::debug, "control message dropped", {{"reason", envelope.error().detail}});
    return;
  }
  if (!received.route.dealer) return on_accepted(received.route, *envelope, now);
  Connection* const connection = connection_of(*received.route.dealer);
  CHECK(connection != nullptr);
  on_connected(*connection, received.route, *envelope, now);
}

// From a process that we connected to.
void ControlChannel::State::on_connected(Connection& connection, const Route& route, Envelope& envelope,
                                         TimePoint now) {
  const auto* const refusal = std::get_if<HelloRefused>(&envelope.message);
  const bool stale = connection.peer && envelope.sender != peers.at(*connection.peer).boot;
  if (connection.peer && (refusal == nullptr || stale)) return deliver(*connection.peer, envelope, now);
  if (refusal != nullptr) {
    const uint32_t before = connection.refusals;
    if (connection.peer) gone(*connection.peer, "it refused this process");
    connection.refusals = before;
    return refused(connection, refusal->reason.empty() ? "no reason given" : refusal->reason, now);
  }
  const auto* const hello = std::get_if<Hello>(&envelope.message);
  if (hello == nullptr || hello->boot != envelope.sender) {
    ++counts.junk;
    return;
  }
  const std::string reason = mismatch(*hello, self);
  if (reason.empty()) return up(route, *hello, now);
  // It took our Hello, so it compares less than we do: it is not to be talked to.
  refused(connection, reason, now);
}

// The next dial is a fresh socket, so that no answer of the old process is taken for one of the new.
void ControlChannel::State::hang_up(Connection& connection) {
  if (connection.dealer) sockets.hang_up(*connection.dealer);
  connection.dealer.reset();
  connection.peer.reset();
  connection.next_dial = connection.next_hello = kAtOnce;
  connection.hello_sent = false;
}

// Its endpoint may have another process by then, or that one another mind.
void ControlChannel::State::refused(Connection& connection, const std::string& reason, TimePoint now) {
  hang_up(connection);
  const bool news = connection.refusals == 0 || connection.refused_for != reason;
  const auto level = !news ? spdlog::level::debug : connection.home ? spdlog::level::err : spdlog::level::warn;
  connection.refused_for = reason;
  if (!connection.home) {
    connection.given_up = true;
    return log_event(level, "refused by a peer", {{"reason", reason}});
  }
  const Duration pause = std::min(config.refusal_pause * (1u << std::min(connection.refusals++, kPauseDoublings)),
                                  config.refusal_pause_max);
  connection.next_dial = now + pause;
  const auto named = std::ranges::find_if(connections, [&](const auto& one) { return &one.second == &connection; });
  log_event(level, "refused by a peer",
            {{"endpoint", named->first}, {"reason", reason}, {"asks_again_s", static_cast<uint64_t>(seconds(pause))}});
}

// From a process that connected to us. Only a Hello makes it known; a refusal of ours ends nothing here.
void ControlChannel::State::on_accepted(const Route& route, Envelope& envelope, TimePoint now) {
  const auto known = by_route.find(route);
  const auto* const hello = std::get_if<Hello>(&envelope.message);
  if (hello != nullptr && hello->boot != envelope.sender) {
    ++counts.junk;
  } else if (known != by_route.end() && (hello == nullptr || hello->boot == peers.at(known->second).boot)) {
    // A Hello said again: the answer to the first one is still on its way.
    if (hello != nullptr) (void)send(route, self);
    deliver(known->second, envelope, now);
  } else if (hello != nullptr) {
    if (known != by_route.end()) gone(known->second, "another process speaks on its connection");
    meet(route, *hello, now);
  } else {
    ++counts.junk;
  }
}

void ControlChannel::State::meet(const Route& route, const Hello& hello, TimePoint now) {
  if (const std::string reason = mismatch(hello, self); !reason.empty()) {
    log_event(spdlog::level::warn, "peer refused", {{"reason", reason}});
    (void)send(route, HelloRefused{reason});
    return;
  }
  // The same process on a new connection, or its successor at the same endpoint: the old connection is dead.
  std::vector<PeerId> replaced;
  for (const auto& [id, peer] : peers)
    if (!peer.route.dealer && (peer.boot == hello.boot ||
                               (!hello.control_endpoint.empty() && peer.control_endpoint == hello.control_endpoint)))
      replaced.push_back(id);
  for (const PeerId id : replaced) gone(id, "it connected again");
  const auto accepted = std::ranges::count_if(peers, [](const auto& entry) { return !entry.second.route.dealer; });
  if (std::cmp_greater_equal(accepted, config.peers_max)) {
    // It will ask again every heartbeat.
    if (!std::exchange(said_full, true))
      log_event(spdlog::level::warn, "peer not accepted", {{"name", hello.name}, {"peers_max", config.peers_max}});
    return;
  }
  if (send(route, self)) up(route, hello, now);
}

void ControlChannel::State::deliver(PeerId id, Envelope& envelope, TimePoint now) {
  Peer& peer = peers.at(id);
  if (envelope.sender != peer.boot) {
    ++counts.stale;
    return;
  }
  peer.last_heard = now;
  if (std::holds_alternative<Hello>(envelope.message) || std::holds_alternative<HelloRefused>(envelope.message) ||
      std::holds_alternative<Heartbeat>(envelope.message))
    return;
  pending.push_back(PeerMessage{id, std::move(envelope.message)});
}

void ControlChannel::State::on_hang_ups(TimePoint now) {
  const ControlSockets::HangUps hang_ups = sockets.take_hang_ups();
  for (const DealerId dealer : hang_ups.dealers) {
    Connection* const connection = connection_of(dealer);
    CHECK(connection != nullptr);
    if (connection->peer) {
      gone(*connection->peer, "hung up");
    } else {
      hang_up(*connection);
      connection->next_dial = now + config.heartbeat_interval;
    }
  }
  if (!hang_ups.accepted) return;
  for (auto& [id, peer] : peers)
    if (!peer.route.dealer) peer.next_heartbeat = std::min(peer.next_heartbeat, now + kProbeDelay);
}

void ControlChannel::State::dial_and_greet(TimePoint now) {
  for (auto& [endpoint, connection] : connections) {
    if (connection.given_up || connection.peer) continue;
    if (!connection.dealer && now >= connection.next_dial) {
      const Result<DealerId> dealer = sockets.dial(endpoint);
      if (dealer) {
        connection.dealer = *dealer;
      } else if (dealer.error().code == ErrorCode::kNoSpace) {
        log_event(spdlog::level::warn, "control connection put off", {{"reason", dealer.error().detail}});
        connection.next_dial = now + config.heartbeat_interval;
      } else {
        log_event(spdlog::level::warn, "control connection given up", {{"reason", dealer.error().detail}});
        connection.given_up = true;
      }
      drained = false;
    }
    // While there is no connection yet, any event may be the one that made it.
    if (!connection.dealer || (connection.hello_sent && now < connection.next_hello)) continue;
    const bool was_drained = drained;
    connection.hello_sent = send(Route{connection.dealer, {}}, self);
    if (!connection.hello_sent) drained = was_drained;
    connection.next_hello = now + config.heartbeat_interval;
  }
}

void ControlChannel::State::send_heartbeats(TimePoint now) {
  std::vector<PeerId> lost;
  for (auto& [id, peer] : peers) {
    if (now < peer.next_heartbeat) continue;
    peer.next_heartbeat = now + config.heartbeat_interval;
    if (!send(peer.route, Heartbeat{})) lost.push_back(id);
  }
  for (const PeerId id : lost) gone(id, "cannot be reached");
}

void ControlChannel::State::judge_silence(TimePoint now) {
  std::vector<std::pair<PeerId, Duration>> silent;
  for (const auto& [id, peer] : peers)
    if (now - peer.last_heard > config.silence_max) silent.emplace_back(id, now - peer.last_heard);
  for (const auto& [id, span] : silent) gone(id, fmt::format("silent for {:.1f} s", seconds(span)));
}

ControlChannel::ControlChannel(const ControlConfig& config, Hello self)
    : state_(std::make_unique<State>(config, std::move(self))) {}

ControlChannel::~ControlChannel() = default;

void ControlChannel::connect(const std::string& endpoint, Endpoint kind) {
  Connection& connection = state_->connections[endpoint];
  connection.home = kind == Endpoint::kHome;
  connection.given_up = false;  // a successor may stand there by now
}

ControlChannel::SendStatus ControlChannel::send(PeerId peer, const Message& message) {
  const auto found = state_->peers.find(peer);
  if (found == state_->peers.end()) return SendStatus::kPeerLost;
  if (state_->send(found->second.route, message)) return SendStatus::kSent;
  state_->gone(peer, "cannot be reached");
  return SendStatus::kPeerLost;
}

void ControlChannel::receive(TimePoint now, std::vector<ControlEvent>& events, size_t events_max) {
  State& state = *state_;
  size_t taken = 0;
  const auto hand_over = [&] {
    for (; taken < events_max && !state.pending.empty(); ++taken) {
      events.push_back(std::move(state.pending.front()));
      state.pending.pop_front();
    }
  };
  hand_over();
  state.drained = false;
  for (size_t messages = 0; messages < events_max && taken < events_max && !state.drained; ++messages) {
    if (const std::optional<ControlSockets::Received> received = state.sockets.receive()) {
      state.on(*received, now);
      hand_over();
    } else {
      state.drained = true;
    }
  }
  if (!state.drained) return state.send_heartbeats(now);  // judge nobody before all that was said is read
  state.on_hang_ups(now);
  state.dial_and_greet(now);
  state.judge_silence(now);
  state.send_heartbeats(now);
  hand_over();
}

TimePoint ControlChannel::next_deadline() const {
  if (!state_->drained || !state_->pending.empty()) return kAtOnce;
  TimePoint next = kNever;
  for (const auto& [id, peer] : state_->peers)
    next = std::min({next, peer.next_heartbeat, peer.last_heard + state_->config.silence_max + Duration(1)});
  for (const auto& [endpoint, connection] : state_->connections)
    if (!connection.given_up && !connection.peer)
      next = std::min(next, connection.dealer ? connection.next_hello : connection.next_dial);
  return next;
}

std::vector<int> ControlChannel::fds() const { return state_->sockets.fds(); }

std::string ControlChannel::refused_reason() const {
  std::string reason;
  for (const auto& [endpoint, connection] : state_->connections) {
    if (!connection.home || connection.given_up) continue;
    if (connection.peer || connection.refusals == 0) return {};
    reason = connection.refused_for;
  }
  return reason;
}

ControlChannel::Counts ControlChannel::counts() const { return state_->counts; }

}  // namespace spillway
