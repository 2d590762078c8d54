#include "simulator/faulty_transport.h"

#include <utility>

namespace spillway {

void FaultyTransport::send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) {
  if (!std::exchange(armed_, false) || payload.empty()) return inner_->send(id, to, header, payload);
  std::vector<std::byte>& copy = copies_.emplace_back(payload.begin(), payload.end());
  copy[random_.below(copy.size())] ^= std::byte{1} << random_.below(8);
  inner_->send(id, to, header, copy);
}

void FaultyTransport::resume() {
  stalls_next_ = false;
  stalled_.reset();
  resumed_.insert(resumed_.end(), held_.begin(), held_.end());
  held_.clear();
}

size_t FaultyTransport::poll(std::span<TransportEvent> events) {
  size_t count = 0;
  for (; !resumed_.empty() && count < events.size(); resumed_.pop_front()) events[count++] = resumed_.front();
  const std::span<TransportEvent> rest = events.subspan(count);
  for (const TransportEvent& event : rest.first(inner_->poll(rest))) {
    if (const auto* const arrived = std::get_if<Arrived>(&event)) {
      if (std::exchange(stalls_next_, false)) stalled_ = arrived->peer;
      if (stalled_ == arrived->peer) {
        held_.push_back(*arrived);
        continue;
      }
    } else if (const auto* const lost = std::get_if<PeerLost>(&event)) {  // its frames are gone with it
      const auto of_lost = [&](const Arrived& one) { return one.peer == lost->peer; };
      std::erase_if(held_, of_lost);
      std::erase_if(resumed_, of_lost);
      if (stalled_ == lost->peer) stalled_.reset();
    }
    events[count++] = event;
  }
  return count;
}

}  // namespace spillway
