#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <variant>

#include "common/ids.h"
#include "kv/block.h"

namespace spillway {

// One or more adjacent layer parts of one block. A part is sent once: when its block is full or its prompt ends.
struct FrameHeader {
  TransferId transfer;
  Epoch epoch{};
  uint32_t block_index = 0;
  LayerRange layers;
  uint32_t bytes = 0;
  uint32_t digest = 0;  // combine_digests() over the part digests, in layer order
  bool operator==(const FrameHeader&) const = default;
};
enum class TransferStatus : uint8_t { kOk, kRefused, kPeerLost };
struct Arrived {  // the peer's claim: check it
  PeerId peer{};
  ArrivalId arrival{};
  FrameHeader header;
};
struct Landed {  // `digest` is of what now lies at the destination, combined like FrameHeader::digest
  ArrivalId arrival{};
  TransferStatus status{};
  uint32_t digest = 0;
};
struct Sent {
  SendId send{};
  TransferStatus status{};
};
struct PeerReady {
  PeerId peer{};
};
struct PeerLost {  // its last event, memory is safe
  PeerId peer{};
};
using TransportEvent = std::variant<PeerReady, Arrived, Landed, Sent, PeerLost>;

// Moves KV parts between processes; knows frames, not requests. Owned and called by the transfer thread.
// The receiver owns the destination: nothing lands before accept() names the place. No callback, no waiting: memory
// given to send() or accept() is the transport's until its Sent or Landed, which always comes, dead peer or not.
class KvTransport {
 public:
  virtual ~KvTransport() = default;
  virtual std::span<const std::byte> endpoint() const = 0;                     // opaque; travels in Hello
  virtual void connect(PeerId peer, std::span<const std::byte> endpoint) = 0;  // ends in PeerReady or PeerLost
  virtual void disconnect(PeerId peer) = 0;                                    // fences it; ends in PeerLost
  virtual uint32_t window() const = 0;  // sends in flight per peer; more is a CHECK
  virtual void send(SendId id, PeerId to, const FrameHeader& header, std::span<const std::byte> payload) = 0;
  // REQUIRES size == header.bytes, a whole number of `part_bytes`. Copies first, then digests what it copied.
  virtual void accept(ArrivalId arrival, std::span<std::byte> destination, size_t part_bytes) = 0;
  virtual void refuse(ArrivalId arrival) = 0;                 // stale epoch, unknown transfer: the bytes are dropped
  virtual size_t poll(std::span<TransportEvent> events) = 0;  // never blocks
  virtual int ready_fd() const = 0;                           // sleep on it only after poll() returned 0
};

}  // namespace spillway
