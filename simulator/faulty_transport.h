#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "simulator/random.h"
#include "transfer/kv_transport.h"

namespace spillway {

// A KvTransport with two faults, each when told to: one bit of a frame flips on its way (the digest in the header stays
// that of what was to be sent), and the frames of one peer are held up while those of others come.
class FaultyTransport final : public KvTransport {
 public:
  FaultyTransport(std::unique_ptr<KvTransport> inner, uint64_t seed) : inner_(std::move(inner)), random_(seed) {}
  void corrupt_next(bool corrupt) { armed_ = corrupt; }
  // Whoever's frame comes next: it and all later ones of the same peer wait for resume().
  void stall_next() { stalls_next_ = true; }
  void resume();

  std::span<const std::byte> endpoint() const override { return inner_->endpoint(); }
  void connect(PeerId peer, std::span<const std::byte> endpoint) override { inner_->connect(peer, endpoint); }
  void disconnect(PeerId peer) override { inner_->disconnect(peer); }
  uint32_t window() const override { return inner_->window(); }
  void send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) override;
  void accept(ArrivalId arrival, std::span<std::byte> destination, size_t part_bytes) override {
    inner_->accept(arrival, destination, part_bytes);
  }
  void refuse(ArrivalId arrival) override { inner_->refuse(arrival); }
  size_t poll(std::span<TransportEvent> events) override;
  int ready_fd() const override { return inner_->ready_fd(); }

 private:
  std::unique_ptr<KvTransport> inner_;
  Random random_;
  bool armed_ = false, stalls_next_ = false;
  std::optional<PeerId> stalled_;
  std::deque<Arrived> held_;                    // of `stalled_`; a window of frames at most
  std::deque<Arrived> resumed_;                 // held no longer, not polled yet
  std::vector<std::vector<std::byte>> copies_;  // the inner transport may read them until the end; one per fault
};

}  // namespace spillway
