#include "simulator/corrupting_transport.h"

#include <utility>

namespace spillway {

void CorruptingTransport::send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) {
  if (!std::exchange(armed_, false) || payload.empty()) return inner_->send(id, to, header, payload);
  std::vector<std::byte>& copy = copies_.emplace_back(payload.begin(), payload.end());
  copy[random_.below(copy.size())] ^= std::byte{1} << random_.below(8);
  inner_->send(id, to, header, copy);
}

}  // namespace spillway
