#include "transfer/shm_transport.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "transfer/shm_handshake.h"
#include "transfer/shm_reception.h"
#include "transfer/shm_ring.h"

namespace spillway {
namespace {

constexpr Duration kTick = std::chrono::milliseconds(20);  // of dialling again and looking at deadlines
constexpr uint32_t kTurnsPerSocketLook = 32;               // a busy ring must not hide a hang-up

// One peer, from connect() to PeerLost.
struct Link {
  enum class State : uint8_t { kDialing, kGreeted, kAwaiting, kReady };
  struct Queued {
    SendId id{};
    FrameHeader header;
    std::span<const std::byte> payload;
  };
  PeerId peer{};
  std::vector<std::byte> remote_bytes;
  ShmEndpoint remote;
  State state = State::kAwaiting;
  TimePoint deadline = kNever;
  UniqueFd socket;
  std::optional<ShmWriter> out;
  std::optional<ShmReader> in;
  std::deque<Queued> queued;  // no room in the ring; at most kShmWindow with those in it
  uint32_t in_flight = 0;
};

UniqueFd make_epoll() {
  UniqueFd epoll(::epoll_create1(EPOLL_CLOEXEC));
  if (!epoll) throw SetupError("cannot create an epoll descriptor: raise the open file limit (ulimit -n)");
  return epoll;
}

class ShmTransport final : public KvTransport {
 public:
  explicit ShmTransport(const ShmConfig& config);
  std::span<const std::byte> endpoint() const override { return endpoint_; }
  void connect(PeerId peer, std::span<const std::byte> endpoint) override;
  void disconnect(PeerId peer) override;
  uint32_t window() const override { return kShmWindow; }
  void send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) override;
  void accept(ArrivalId arrival, std::span<std::byte> destination, size_t part_bytes) override;
  void refuse(ArrivalId arrival) override;
  size_t poll(std::span<TransportEvent> events) override;
  int ready_fd() const override { return epoll_.get(); }

 private:
  struct Arrival {
    PeerId peer{};
    uint64_t sequence = 0;  // of its ring
  };
  void progress();
  void look_at_rings();
  void look_at_sockets();
  void tick();
  void go_to_sleep();
  [[nodiscard]] bool pump(Link& link);
  void dial(Link& link);
  void meet_callers();
  bool greet(Link& link);
  bool open_ring(Link& link, const ShmGreeting& greeting);
  void read_socket(Link& link);
  void wake_peer(Link& link);
  void answer(ArrivalId arrival, TransferStatus status);
  void drop(PeerId peer, std::string_view reason);
  void set_timer();

  const ShmConfig config_;
  UniqueFd epoll_, timer_;
  ShmReception reception_;
  const std::vector<std::byte> endpoint_;
  std::map<PeerId, Link> links_;           // at most peers_max
  std::map<ArrivalId, Arrival> arrivals_;  // announced, not answered; at most a window per link
  std::deque<TransportEvent> events_;      // at most three windows and two per link
  uint64_t next_arrival_ = 0;
  uint32_t turns_ = 0;
  bool asleep_ = false, timer_runs_ = false;
};

ShmTransport::ShmTransport(const ShmConfig& config)
    : config_(config),
      epoll_(make_epoll()),
      timer_(::timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)),
      reception_(config.socket_directory, config.peers_max, config.establish_max, epoll_.get()),
      endpoint_(reception_.endpoint().bytes()) {
  if (config.ring_bytes % kPageBytes != 0 || config.ring_bytes > kShmRingBytesMax ||
      config.frame_bytes_max > UINT32_MAX || config.ring_bytes < config.frame_bytes_max + 2 * kShmFrameHeaderBytes)
    throw SetupError(
        fmt::format("a shared memory ring of {} bytes cannot hold frames of {}: make it larger, in whole "
                    "pages, at most {}",
                    config.ring_bytes, config.frame_bytes_max, kShmRingBytesMax));
  if (!timer_) throw SetupError("cannot create a timer descriptor: raise the open file limit (ulimit -n)");
  watch_input(epoll_.get(), timer_.get());
}

void ShmTransport::connect(PeerId peer, std::span<const std::byte> endpoint) {
  CHECK(!links_.contains(peer));
  Result<ShmEndpoint> remote = ShmEndpoint::parse(endpoint);
  const bool to_itself = std::ranges::equal(endpoint, endpoint_);
  if (!remote || to_itself || links_.size() >= config_.peers_max) {
    spdlog::warn("bulk connection refused peer={} reason=\"{}\"", static_cast<uint32_t>(peer),
                 !remote     ? remote.error().detail
                 : to_itself ? "own endpoint"
                             : "peers_max reached");
    events_.push_back(PeerLost{peer});
    return;
  }
  Link& link = links_[peer];
  link.peer = peer;
  link.remote_bytes.assign(endpoint.begin(), endpoint.end());
  link.remote = std::move(*remote);
  link.deadline = steady_now() + config_.establish_max;
  if (std::ranges::lexicographical_compare(endpoint_, endpoint)) {
    link.state = Link::State::kDialing;
    dial(link);
  } else {
    meet_callers();
  }
  set_timer();
}

void ShmTransport::dial(Link& link) {
  Result<UniqueFd> socket = dial_shm(link.remote);
  if (!socket) return drop(link.peer, socket.error().detail);
  if (!*socket) return;
  link.socket = std::move(*socket);
  link.state = Link::State::kGreeted;
  watch_input(epoll_.get(), link.socket.get());
  if (!greet(link)) drop(link.peer, "it takes no greeting");
}

bool ShmTransport::greet(Link& link) {
  Result<ShmWriter> out = ShmWriter::make(config_.ring_bytes);
  if (!out) {
    log_event(spdlog::level::warn, "bulk ring failed", {{"reason", out.error().detail}});
    return false;
  }
  link.out.emplace(std::move(*out));
  const bool sent = send_greeting(link.socket.get(), link.remote, endpoint_, link.out->fd());
  link.out->close_fd();
  return sent;
}

bool ShmTransport::open_ring(Link& link, const ShmGreeting& greeting) {
  Result<ShmReader> in = ShmReader::map(greeting.ring.get(), config_.frame_bytes_max);
  if (!in) {
    log_event(spdlog::level::warn, "bulk ring refused", {{"reason", in.error().detail}});
    return false;
  }
  link.in.emplace(std::move(*in));
  link.state = Link::State::kReady;
  link.deadline = kNever;
  events_.push_back(PeerReady{link.peer});
  return true;
}

// Gives each waiting link the caller that is its peer.
void ShmTransport::meet_callers() {
  reception_.look(steady_now());
  std::vector<PeerId> broken;
  for (auto& [peer, link] : links_) {
    if (link.state != Link::State::kAwaiting) continue;
    std::optional<ShmCaller> caller = reception_.take(link.remote_bytes);
    if (!caller) continue;
    link.socket = std::move(caller->socket);
    if (!greet(link) || !open_ring(link, caller->greeting)) broken.push_back(peer);
  }
  for (const PeerId peer : broken) drop(peer, "its ring cannot be used");
}

void ShmTransport::disconnect(PeerId peer) {
  if (links_.contains(peer)) drop(peer, "disconnected");
}

void ShmTransport::send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) {
  const auto found = links_.find(to);
  if (found == links_.end() || found->second.state != Link::State::kReady) {
    events_.push_back(Sent{id, TransferStatus::kPeerLost});
    return;
  }
  Link& link = found->second;
  CHECK(link.in_flight < window() && payload.size() <= config_.frame_bytes_max && header.bytes == payload.size());
  ++link.in_flight;
  if (link.queued.empty() && link.out->has_room(payload.size())) {
    link.out->write(id, header, payload);
    wake_peer(link);
  } else {
    link.queued.push_back({id, header, payload});
  }
}

void ShmTransport::accept(ArrivalId arrival, std::span<std::byte> destination, size_t part_bytes) {
  const auto found = arrivals_.find(arrival);
  if (found == arrivals_.end()) {  // its peer was lost meanwhile
    events_.push_back(Landed{arrival, TransferStatus::kPeerLost, 0});
    return;
  }
  const uint32_t digest = links_.at(found->second.peer).in->copy_out(found->second.sequence, destination, part_bytes);
  events_.push_back(Landed{arrival, TransferStatus::kOk, digest});
  answer(arrival, TransferStatus::kOk);
}

void ShmTransport::refuse(ArrivalId arrival) {
  if (arrivals_.contains(arrival)) answer(arrival, TransferStatus::kRefused);
}

void ShmTransport::answer(ArrivalId arrival, TransferStatus status) {
  const auto found = arrivals_.find(arrival);
  Link& link = links_.at(found->second.peer);
  link.in->answer(found->second.sequence, status);
  arrivals_.erase(found);
  wake_peer(link);
}

size_t ShmTransport::poll(std::span<TransportEvent> events) {
  if (events_.empty()) progress();
  const size_t count = std::min(events.size(), events_.size());
  std::move(events_.begin(), events_.begin() + static_cast<ptrdiff_t>(count), events.begin());
  events_.erase(events_.begin(), events_.begin() + static_cast<ptrdiff_t>(count));
  return count;
}

void ShmTransport::progress() {
  if (asleep_)
    for (auto& [peer, link] : links_)
      if (link.out) link.out->control().writer_sleeps.store(0);
  asleep_ = false;
  look_at_rings();
  if (events_.empty() || ++turns_ % kTurnsPerSocketLook == 0) look_at_sockets();
  if (events_.empty()) go_to_sleep();
}

// Says "wake me", then looks once more: a peer that missed the flag has published before this look.
void ShmTransport::go_to_sleep() {
  asleep_ = true;
  for (auto& [peer, link] : links_)
    if (link.out) link.out->control().writer_sleeps.store(1);
  look_at_rings();
}

void ShmTransport::look_at_rings() {
  std::vector<PeerId> broken;
  for (auto& [peer, link] : links_)
    if (link.state == Link::State::kReady && !pump(link)) broken.push_back(peer);
  for (const PeerId peer : broken) drop(peer, "it broke the rules of the ring");
}

// Answers in, queued sends out, new frames in. False: the peer broke the rules.
bool ShmTransport::pump(Link& link) {
  for (;;) {
    const Result<std::optional<ShmWriter::Answer>> answered = link.out->next_answer();
    if (!answered) return false;
    if (!*answered) break;
    --link.in_flight;
    events_.push_back(Sent{(*answered)->id, (*answered)->status});
  }
  bool wrote = false;
  while (!link.queued.empty() && link.out->has_room(link.queued.front().payload.size())) {
    const Link::Queued& next = link.queued.front();
    link.out->write(next.id, next.header, next.payload);
    link.queued.pop_front();
    wrote = true;
  }
  if (wrote) wake_peer(link);
  for (;;) {
    const uint64_t sequence = link.in->taken();
    const Result<std::optional<FrameHeader>> frame = link.in->next_frame();
    if (!frame) return false;
    if (!*frame) return true;
    const ArrivalId arrival{next_arrival_++};
    arrivals_[arrival] = {link.peer, sequence};
    events_.push_back(Arrived{link.peer, arrival, **frame});
  }
}

void ShmTransport::wake_peer(Link& link) {
  std::atomic<uint32_t>& sleeps = link.in->control().writer_sleeps;
  if (sleeps.load() == 0 || sleeps.exchange(0) == 0) return;
  const char bell = 0;
  // A full socket holds bells enough; a hang-up is seen by poll().
  [[maybe_unused]] const ssize_t sent = ::send(link.socket.get(), &bell, sizeof bell, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void ShmTransport::look_at_sockets() {
  std::array<epoll_event, 32> ready;
  const int count = ::epoll_wait(epoll_.get(), ready.data(), static_cast<int>(ready.size()), 0);
  for (int i = 0; i < count; ++i) {
    const int fd = ready[static_cast<size_t>(i)].data.fd;
    if (fd == timer_.get()) {
      tick();
      continue;
    }
    const auto found = std::ranges::find_if(links_, [&](const auto& entry) { return entry.second.socket.get() == fd; });
    if (found != links_.end()) {
      read_socket(found->second);
    } else {
      meet_callers();
    }
  }
  if (count > 0) {
    set_timer();
    look_at_rings();
  }
}

void ShmTransport::read_socket(Link& link) {
  if (link.state == Link::State::kGreeted) {
    Result<std::optional<ShmGreeting>> greeting = receive_greeting(link.socket.get());
    if (!greeting) return drop(link.peer, greeting.error().detail);
    if (!*greeting) return;
    if ((*greeting)->token != reception_.endpoint().token || (*greeting)->endpoint != link.remote_bytes)
      return drop(link.peer, "its greeting names another endpoint");
    if (!open_ring(link, **greeting)) drop(link.peer, "its ring cannot be used");
    return;
  }
  char bell = 0;
  for (uint32_t i = 0; i < kShmWindow; ++i) {
    const ssize_t bytes = ::recv(link.socket.get(), &bell, sizeof bell, MSG_DONTWAIT);
    if (bytes == 0 || (bytes < 0 && errno != EAGAIN && errno != EINTR)) return drop(link.peer, "hung up");
    if (bytes < 0) return;
  }
}

void ShmTransport::tick() {
  uint64_t ticks = 0;
  [[maybe_unused]] const ssize_t taken = ::read(timer_.get(), &ticks, sizeof ticks);
  const TimePoint now = steady_now();
  reception_.expire(now);
  std::vector<PeerId> peers;
  for (const auto& [peer, link] : links_)
    if (link.state == Link::State::kDialing || link.deadline <= now) peers.push_back(peer);
  for (const PeerId peer : peers) {
    Link& link = links_.at(peer);
    if (link.deadline <= now) {
      drop(peer, "not established in time");
    } else {
      dial(link);
    }
  }
}

// Runs while something waits for a deadline.
void ShmTransport::set_timer() {
  const bool needed = !reception_.empty() || std::ranges::any_of(links_, [](const auto& entry) {
    return entry.second.state != Link::State::kReady;
  });
  if (needed == timer_runs_) return;
  timer_runs_ = needed;
  itimerspec spec{};
  if (needed) spec.it_value.tv_nsec = spec.it_interval.tv_nsec = Duration(kTick).count();
  CHECK(::timerfd_settime(timer_.get(), 0, &spec, nullptr) == 0);
}

// Unmaps the rings, so nothing of this peer can move any more, then says how everything ended.
void ShmTransport::drop(PeerId peer, std::string_view reason) {
  auto node = links_.extract(peer);
  Link& link = node.mapped();
  log_event(spdlog::level::info, "bulk peer lost", {{"peer", static_cast<uint32_t>(peer)}, {"reason", reason}});
  std::erase_if(arrivals_, [&](const auto& entry) { return entry.second.peer == peer; });
  if (link.out)
    for (const SendId id : link.out->unanswered()) events_.push_back(Sent{id, TransferStatus::kPeerLost});
  for (const Link::Queued& queued : link.queued) events_.push_back(Sent{queued.id, TransferStatus::kPeerLost});
  events_.push_back(PeerLost{peer});
}

}  // namespace

size_t ring_bytes_for(size_t frame_bytes_max) {
  constexpr size_t kFrames = 8, kLeast = size_t{4} << 20;
  const size_t frame = (frame_bytes_max + 2 * kShmFrameHeaderBytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  return std::clamp(kFrames * frame, kLeast, kShmRingBytesMax);
}

std::unique_ptr<KvTransport> make_shm_transport(const ShmConfig& config) {
  return std::make_unique<ShmTransport>(config);
}

}  // namespace spillway
