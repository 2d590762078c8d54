#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "common/clock.h"
#include "common/ids.h"
#include "kv/kv_cache.h"
#include "transfer/transfer_job.h"

namespace spillway {

// A node's: layers of one block that may share a frame, and how large that makes it.
inline constexpr uint32_t kLayersPerFrame = 8;
inline size_t frame_bytes_max(const KvLayout& layout) { return layout.part_bytes() * kLayersPerFrame; }

// Plans what leaves this node: which parts of which transfers are ready, granted and inside the send window. Holds a
// reader pin on each wanted slot from offer() until its parts are sent or the transfer ends, and one per send in
// flight. Each part is sent at most once, and exactly once if the transfer is granted and not ended. A peer that leaves
// its sends unanswered takes no more than its own window, and is given up after answer_max. Loop thread; no I/O, no
// clock: it returns SendParts jobs. `cache` must outlive it.
class KvSender {
 public:
  struct Config {
    uint32_t layer_count = 0;
    uint32_t transfers_max = 0;
    uint32_t window = 0;                            // SendParts in flight to one peer
    uint32_t sends_max = 0;                         // SendParts in flight to all peers together
    uint32_t layers_per_frame = 0;                  // adjacent ready layers of one block that may share a frame
    Duration answer_max = std::chrono::seconds(5);  // a send unanswered for so long: its peer is silent
  };
  KvSender(const Config& config, KvCache& cache);

  // The KV of `block_count` blocks will be offered. REQUIRES: !knows(transfer), has_room().
  void begin(TransferId transfer, Epoch epoch, uint32_t block_count);
  // The receiver `to` wants blocks first_block.. (idempotent; a stale epoch or unknown transfer is ignored).
  // REQUIRES: first_block <= block_count.
  void grant(TransferId transfer, Epoch epoch, PeerId to, uint32_t first_block);
  // These parts of a block lie complete in `slot`. Parts offered before are skipped, so are blocks that the
  // receiver holds. What is offered is not written any more. REQUIRES: knows(transfer), indices inside.
  void offer(TransferId transfer, uint32_t block_index, SlotId slot, LayerRange layers);
  // Appends the jobs that may go now: oldest transfer first, parts in the order of their offers.
  void plan(TimePoint now, std::vector<SendParts>& jobs);
  // Peers with a send unanswered for answer_max, each named once: their links are to be ended, which answers their
  // sends. Nothing more is planned for them until all are answered.
  std::vector<PeerId> give_up_silent(TimePoint now);
  TimePoint next_deadline() const;  // of give_up_silent(); kNever: none
  // Books the end of one send; returns its transfer while that is still known.
  struct Outcome {
    TransferId transfer;
    TransferStatus status{};
  };
  std::optional<Outcome> on(const PartsSent& sent);
  // Granted, every part of every wanted block sent and answered with kOk. False for an unknown transfer.
  bool all_sent(TransferId transfer) const;
  // Offers nothing more; pins of parts in flight stay until their PartsSent. An unknown transfer is ignored.
  void end(TransferId transfer);

  bool knows(TransferId transfer) const { return serials_.contains(transfer); }
  bool has_room() const { return transfers_.size() < config_.transfers_max; }
  uint32_t open_transfers() const { return static_cast<uint32_t>(transfers_.size()); }
  uint32_t sends_in_flight() const { return static_cast<uint32_t>(in_flight_.size()); }
  const Config& config() const { return config_; }
  void check_conservation() const;

 private:
  enum class Part : uint8_t { kAbsent, kReady, kInFlight, kSent };
  struct Block {
    SlotPin pin;              // while a part is ready
    std::vector<Part> parts;  // one per layer; empty until the first offer
    uint32_t ready = 0;       // parts in state kReady
  };
  struct Offer {
    uint32_t block_index = 0;
    LayerRange layers;  // what of it is still ready is found in Block::parts
  };
  struct Transfer {
    TransferId id;
    Epoch epoch{};
    PeerId to{};                          // set by grant()
    std::optional<uint32_t> first_block;  // set by grant()
    std::vector<Block> blocks;
    std::deque<Offer> offers;
    uint64_t parts_sent = 0;
  };
  struct InFlight {
    uint64_t serial = 0;  // of the transfer; one begun anew under the same id is another
    PeerId to{};
    TimePoint answer_by{};
    uint32_t block_index = 0;
    LayerRange layers;
    SlotPin pin;
  };

  struct Peer {  // while sends to it are in flight
    uint32_t in_flight = 0;
    bool given_up = false;
  };

  Transfer* find(TransferId transfer);
  bool may_send(PeerId to) const;
  bool next_run(Transfer& transfer, Offer& run);
  SendParts start(uint64_t serial, Transfer& transfer, const Offer& run, TimePoint now);

  Config config_;
  KvCache& cache_;
  std::map<TransferId, uint64_t> serials_;
  std::map<uint64_t, Transfer> transfers_;  // by serial: oldest first
  std::map<SendId, InFlight> in_flight_;    // oldest first
  std::map<PeerId, Peer> peers_;
  uint64_t next_serial_ = 0;
  uint64_t next_send_ = 0;
};

}  // namespace spillway
