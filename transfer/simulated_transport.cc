#include "transfer/simulated_transport.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "common/check.h"
#include "kv/digest.h"

namespace spillway {
namespace {

constexpr uint32_t kWindow = 64;

using MemberId = uint64_t;

std::vector<std::byte> endpoint_of(MemberId member) {
  std::vector<std::byte> bytes(sizeof member);
  std::memcpy(bytes.data(), &member, sizeof member);
  return bytes;
}

std::optional<MemberId> member_of(std::span<const std::byte> endpoint) {
  MemberId member = 0;
  if (endpoint.size() != sizeof member) return std::nullopt;
  std::memcpy(&member, endpoint.data(), sizeof member);
  return member;
}

}  // namespace

class SimulatedTransport final : public KvTransport {
 public:
  SimulatedTransport(SimulatedFabric::State& fabric, MemberId self)
      : fabric_(fabric), self_(self), endpoint_(endpoint_of(self)) {}
  ~SimulatedTransport() override;
  std::span<const std::byte> endpoint() const override { return endpoint_; }
  void connect(PeerId peer, std::span<const std::byte> endpoint) override;
  void disconnect(PeerId peer) override;
  uint32_t window() const override { return kWindow; }
  void send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) override;
  void accept(ArrivalId arrival, std::span<std::byte> destination, size_t part_bytes) override;
  void refuse(ArrivalId arrival) override;
  size_t poll(std::span<TransportEvent> events) override;
  int ready_fd() const override { return -1; }

 private:
  friend class SimulatedFabric;
  struct Frame {  // sent, its memory still the sender's
    SendId send{};
    FrameHeader header;
    std::span<const std::byte> payload;
    std::optional<ArrivalId> arrival;  // once announced to the receiver
    std::optional<TransferStatus> answer;
  };
  struct Link {
    MemberId remote = 0;
    bool ready = false;
    std::deque<Frame> frames;  // sent by us, not answered: at most kWindow
  };
  using Links = std::map<PeerId, Link>;
  SimulatedTransport& other(const Link& link) const;
  Links::iterator link_to(MemberId remote, bool ready);
  Frame& arrived(ArrivalId arrival);
  void answer(ArrivalId arrival, TransferStatus status);
  void drop(PeerId peer);
  void break_link(PeerId peer);

  SimulatedFabric::State& fabric_;
  const MemberId self_;
  const std::vector<std::byte> endpoint_;
  Links links_;
  std::map<ArrivalId, PeerId> arrivals_;  // announced, not answered
  std::deque<TransportEvent> events_;
  uint64_t next_arrival_ = 0;
};

struct SimulatedFabric::State {
  std::mt19937_64 random;
  Faults faults;
  std::map<MemberId, SimulatedTransport*> members;
  MemberId next_member = 1;

  bool happens(double probability) {
    return probability > 0 && static_cast<double>(random() >> 11) * 0x1p-53 < probability;
  }
};

SimulatedFabric::SimulatedFabric(uint64_t seed, Faults faults) : state_(std::make_unique<State>()) {
  state_->random.seed(seed);
  state_->faults = faults;
}

SimulatedFabric::~SimulatedFabric() { CHECK(state_->members.empty()); }

std::unique_ptr<KvTransport> SimulatedFabric::make_member() {
  const MemberId id = state_->next_member++;
  auto member = std::make_unique<SimulatedTransport>(*state_, id);
  state_->members[id] = member.get();
  return member;
}

void SimulatedFabric::break_links(std::span<const std::byte> endpoint) {
  const auto found = state_->members.find(member_of(endpoint).value_or(0));
  if (found == state_->members.end()) return;
  SimulatedTransport& member = *found->second;
  while (!member.links_.empty()) member.break_link(member.links_.begin()->first);
}

SimulatedTransport::~SimulatedTransport() {
  while (!links_.empty()) break_link(links_.begin()->first);
  fabric_.members.erase(self_);
  for (auto& [id, member] : fabric_.members) {  // whoever still waited for us to connect back
    const auto waiting = member->link_to(self_, false);
    if (waiting != member->links_.end()) member->drop(waiting->first);
  }
}

SimulatedTransport& SimulatedTransport::other(const Link& link) const { return *fabric_.members.at(link.remote); }

SimulatedTransport::Links::iterator SimulatedTransport::link_to(MemberId remote, bool ready) {
  return std::ranges::find_if(
      links_, [&](const auto& entry) { return entry.second.remote == remote && entry.second.ready == ready; });
}

void SimulatedTransport::connect(PeerId peer, std::span<const std::byte> endpoint) {
  CHECK(!links_.contains(peer));
  const std::optional<MemberId> remote = member_of(endpoint);
  if (!remote || *remote == self_ || !fabric_.members.contains(*remote)) {
    events_.push_back(PeerLost{peer});
    return;
  }
  Link& link = links_[peer];
  link.remote = *remote;
  SimulatedTransport& there = other(link);
  const auto back = there.link_to(self_, false);
  if (back == there.links_.end()) return;
  link.ready = back->second.ready = true;
  events_.push_back(PeerReady{peer});
  there.events_.push_back(PeerReady{back->first});
}

void SimulatedTransport::disconnect(PeerId peer) {
  if (links_.contains(peer)) break_link(peer);
}

// Both ends see it, as both see a broken connection.
void SimulatedTransport::break_link(PeerId peer) {
  const Link& link = links_.at(peer);
  if (link.ready) {
    SimulatedTransport& there = other(link);
    there.drop(there.link_to(self_, true)->first);
  }
  drop(peer);
}

void SimulatedTransport::drop(PeerId peer) {
  auto node = links_.extract(peer);
  std::erase_if(arrivals_, [&](const auto& entry) { return entry.second == peer; });
  for (const Frame& frame : node.mapped().frames) events_.push_back(Sent{frame.send, TransferStatus::kPeerLost});
  events_.push_back(PeerLost{peer});
}

void SimulatedTransport::send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) {
  const auto found = links_.find(to);
  if (found == links_.end() || !found->second.ready) {
    events_.push_back(Sent{id, TransferStatus::kPeerLost});
    return;
  }
  Link& link = found->second;
  CHECK(link.frames.size() < kWindow && header.bytes == payload.size());
  link.frames.push_back({id, header, payload, std::nullopt, std::nullopt});
  if (fabric_.happens(fabric_.faults.disconnect)) break_link(to);
}

SimulatedTransport::Frame& SimulatedTransport::arrived(ArrivalId arrival) {
  const Link& link = links_.at(arrivals_.at(arrival));
  std::deque<Frame>& frames = other(link).link_to(self_, true)->second.frames;
  return *std::ranges::find_if(frames, [&](const Frame& frame) { return frame.arrival == arrival; });
}

void SimulatedTransport::accept(ArrivalId arrival, std::span<std::byte> destination, size_t part_bytes) {
  if (!arrivals_.contains(arrival)) {  // its peer was lost meanwhile
    events_.push_back(Landed{arrival, TransferStatus::kPeerLost, 0});
    return;
  }
  const Frame& frame = arrived(arrival);
  CHECK(destination.size() == frame.header.bytes && part_bytes > 0 && destination.size() % part_bytes == 0);
  if (!destination.empty()) std::memcpy(destination.data(), frame.payload.data(), destination.size());
  if (!destination.empty() && fabric_.happens(fabric_.faults.corrupt))
    destination[fabric_.random() % destination.size()] ^= std::byte{1} << (fabric_.random() % 8);
  std::vector<uint32_t> digests;
  for (size_t offset = 0; offset < destination.size(); offset += part_bytes)
    digests.push_back(part_digest(destination.subspan(offset, part_bytes)));
  events_.push_back(Landed{arrival, TransferStatus::kOk, combine_digests(digests)});
  answer(arrival, TransferStatus::kOk);
}

void SimulatedTransport::refuse(ArrivalId arrival) {
  if (arrivals_.contains(arrival)) answer(arrival, TransferStatus::kRefused);
}

// The sender learns of its frames in the order in which it sent them.
void SimulatedTransport::answer(ArrivalId arrival, TransferStatus status) {
  arrived(arrival).answer = status;
  SimulatedTransport& there = other(links_.at(arrivals_.at(arrival)));
  arrivals_.erase(arrival);
  std::deque<Frame>& frames = there.link_to(self_, true)->second.frames;
  for (; !frames.empty() && frames.front().answer; frames.pop_front())
    there.events_.push_back(Sent{frames.front().send, *frames.front().answer});
}

size_t SimulatedTransport::poll(std::span<TransportEvent> events) {
  for (auto& [peer, link] : links_) {
    if (!link.ready) continue;
    for (Frame& frame : other(link).link_to(self_, true)->second.frames) {
      if (frame.arrival) continue;
      frame.arrival = ArrivalId{next_arrival_++};
      arrivals_[*frame.arrival] = peer;
      events_.push_back(Arrived{peer, *frame.arrival, frame.header});
    }
  }
  const size_t count = std::min(events.size(), events_.size());
  std::move(events_.begin(), events_.begin() + static_cast<ptrdiff_t>(count), events.begin());
  events_.erase(events_.begin(), events_.begin() + static_cast<ptrdiff_t>(count));
  return count;
}

}  // namespace spillway
