#include "transfer/control_sockets.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <utility>

#include "common/check.h"
#include "common/unique_fd.h"
#include "transfer/control_endpoint.h"

namespace spillway {
namespace {

constexpr int64_t kMessageBytesMax = int64_t{16} << 20;  // a prompt of kPromptTokensMax ids takes 4 MiB
constexpr std::string_view kIpc = "ipc://";

// ZeroMQ would take over the socket file of a living process: ask first. The pid that listens there, 0 if nobody does.
pid_t ipc_holder(std::string_view path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) return 0;  // bind() will say so
  std::memcpy(address.sun_path, path.data(), path.size());
  const UniqueFd probe(::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!probe || ::connect(probe.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) return 0;
  ucred holder{};
  socklen_t bytes = sizeof holder;
  return ::getsockopt(probe.get(), SOL_SOCKET, SO_PEERCRED, &holder, &bytes) == 0 ? holder.pid : 0;
}

// False: nothing has arrived. A handled signal may interrupt even this.
bool receive_part(zmq::socket_t& socket, zmq::message_t& part) {
  for (;;) {
    try {
      return socket.recv(part, zmq::recv_flags::dontwait).has_value();
    } catch (const zmq::error_t& error) {
      if (error.num() != EINTR) throw;
    }
  }
}

}  // namespace

ControlSockets::ControlSockets(const std::string& bind_endpoint, uint32_t messages_queued_max)
    : queued_max_(checked_cast<int>(messages_queued_max)), context_(1) {
  CHECK(queued_max_ > 0);  // 0 would mean no bound
  if (bind_endpoint.empty()) return;
  const Result<std::string> endpoint = local_control_endpoint(bind_endpoint);
  if (!endpoint) throw SetupError(fmt::format("cannot bind the control endpoint: {}", endpoint.error().detail));
  if (endpoint->starts_with(kIpc)) {
    const pid_t holder = ipc_holder(std::string_view(*endpoint).substr(kIpc.size()));
    if (holder != 0)
      throw SetupError(fmt::format("{} is held by process {}: stop it or use another endpoint", bind_endpoint, holder));
  }
  try {
    router_.emplace(make(zmq::socket_type::router));
    router_->socket.set(zmq::sockopt::router_mandatory, true);
    router_->socket.bind(*endpoint);
  } catch (const zmq::error_t& error) {
    throw SetupError(fmt::format("cannot bind the control endpoint {}: {}{}", bind_endpoint, error.what(),
                                 error.num() == EADDRINUSE ? " (ss -ltnp names the process that holds it)" : ""));
  }
}

// A socket without a reader for its events would stop ZeroMQ's thread, and with it all connections, at the next event:
// zmq_socket_monitor(3) sends them over a PAIR, which blocks without a peer.
ControlSockets::Watched::~Watched() {
  if (socket.handle() != nullptr) ::zmq_socket_monitor(socket.handle(), nullptr, 0);
}

ControlSockets::Watched ControlSockets::make(zmq::socket_type type) {
  Watched made{zmq::socket_t(context_, type), zmq::socket_t(context_, zmq::socket_type::pair)};
  made.socket.set(zmq::sockopt::linger, 0);
  made.socket.set(zmq::sockopt::immediate, true);  // nothing is queued for a connection that does not exist
  made.socket.set(zmq::sockopt::sndhwm, queued_max_);
  made.socket.set(zmq::sockopt::rcvhwm, queued_max_);
  made.socket.set(zmq::sockopt::maxmsgsize, kMessageBytesMax);
  made.monitor.set(zmq::sockopt::linger, 0);
  const std::string address = fmt::format("inproc://monitor-{}", next_monitor_++);
  if (::zmq_socket_monitor(made.socket.handle(), address.c_str(), ZMQ_EVENT_DISCONNECTED) != 0) throw zmq::error_t();
  made.monitor.connect(address);
  return made;
}

Result<DealerId> ControlSockets::dial(const std::string& endpoint) {
  const Result<std::string> local = local_control_endpoint(endpoint);
  if (!local) return tl::unexpected(local.error());
  bool made_socket = false;
  try {
    Watched made = make(zmq::socket_type::dealer);
    made_socket = true;
    made.socket.connect(*local);
    const DealerId id{next_dealer_++};
    dealers_.emplace(id, std::move(made));
    return id;
  } catch (const zmq::error_t& error) {
    return fail(made_socket ? ErrorCode::kInvalidArgument : ErrorCode::kNoSpace,
                fmt::format("cannot connect to \"{}\": {}", endpoint, error.what()));
  }
}

void ControlSockets::hang_up(DealerId dealer) { dealers_.erase(dealer); }

bool ControlSockets::send(const Route& route, std::span<const std::byte> body) {
  const auto dealer = route.dealer ? dealers_.find(*route.dealer) : dealers_.end();
  if (route.dealer ? dealer == dealers_.end() : !router_) return false;
  zmq::socket_t& socket = route.dealer ? dealer->second.socket : router_->socket;
  try {
    // The parts of one message go together: the body is never refused once the identity was taken.
    if (!route.dealer &&
        !socket.send(zmq::buffer(route.identity), zmq::send_flags::dontwait | zmq::send_flags::sndmore))
      return false;
    return socket.send(zmq::buffer(body.data(), body.size()), zmq::send_flags::dontwait).has_value();
  } catch (const zmq::error_t& error) {
    if (error.num() == EHOSTUNREACH) return false;
    throw;
  }
}

// All parts of one message, kept if it has exactly one body. Nothing: drained.
std::optional<zmq::message_t> ControlSockets::receive_body(zmq::socket_t& socket, std::string* identity) {
  zmq::message_t part, body;
  if (!receive_part(socket, part)) return std::nullopt;
  size_t bodies = 0;
  if (identity != nullptr) {
    *identity = part.to_string();
  } else {
    body.move(part);
    ++bodies;
  }
  while (socket.get(zmq::sockopt::rcvmore)) {
    if (!receive_part(socket, part)) break;
    body.move(part);
    ++bodies;
  }
  if (bodies != 1) body.rebuild();
  return body;
}

std::optional<ControlSockets::Received> ControlSockets::receive() {
  const auto read = [this](DealerId id, Watched& watched) -> std::optional<Received> {
    std::optional<zmq::message_t> body = receive_body(watched.socket, nullptr);
    if (!body) return std::nullopt;
    turn_ = id;
    return Received{Route{id, {}}, std::move(*body)};
  };
  // DealerId 0 is the ROUTER's turn; whoever comes after the last one read comes first.
  for (auto next = dealers_.upper_bound(turn_); next != dealers_.end(); ++next)
    if (auto received = read(next->first, next->second)) return received;
  if (router_) {
    Received received;
    if (auto body = receive_body(router_->socket, &received.route.identity)) {
      turn_ = DealerId{};
      received.body = std::move(*body);
      return received;
    }
  }
  for (auto& [id, watched] : dealers_) {
    if (id > turn_) break;
    if (auto received = read(id, watched)) return received;
  }
  return std::nullopt;
}

bool ControlSockets::hung_up(zmq::socket_t& monitor) {
  bool found = false;
  while (receive_body(monitor, nullptr)) found = true;
  return found;
}

ControlSockets::HangUps ControlSockets::take_hang_ups() {
  HangUps taken;
  taken.accepted = router_ && hung_up(router_->monitor);
  for (auto& [id, watched] : dealers_)
    if (hung_up(watched.monitor)) taken.dealers.push_back(id);
  return taken;
}

std::vector<int> ControlSockets::fds() const {
  std::vector<int> fds;
  const auto add = [&](const Watched& watched) {
    fds.push_back(watched.socket.get(zmq::sockopt::fd));
    fds.push_back(watched.monitor.get(zmq::sockopt::fd));
  };
  if (router_) add(*router_);
  for (const auto& [id, watched] : dealers_) add(watched);
  return fds;
}

}  // namespace spillway
