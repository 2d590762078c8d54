#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "common/ids.h"
#include "kv/kv_cache.h"
#include "transfer/transfer_job.h"

namespace spillway {

// Books what arrives: one bitmap of (block, layer) per transfer. Holds a writer pin on each destination slot from
// open() until TransferClosed came back, so that a slot is never reused while the transfer thread may write it. Loop
// thread; no I/O. `cache` must outlive it.
class KvReceiver {
 public:
  struct Config {
    uint32_t layer_count = 0;
    uint32_t transfers_max = 0;  // open and closing together
  };
  KvReceiver(const Config& config, KvCache& cache);

  // Wants blocks first_block.. into `slots` (may be empty: complete at once, no job). REQUIRES: !knows(transfer),
  // has_room(), slots are held. The job, if any, must reach the transfer thread before the Grant leaves.
  std::optional<OpenTransfer> open(TransferId transfer, Epoch epoch, PeerId from, uint32_t first_block,
                                   std::vector<SlotId> slots);
  enum class Landing : uint8_t { kIgnored, kCounted, kCorrupt };  // kIgnored: unknown, closed, stale or doubled
  Landing on(const PartsLanded& landed);
  bool complete(TransferId transfer) const;  // every wanted part landed; false for an unknown or closing transfer
  // Nothing more is wanted; returns the job to post where one is due (idempotent).
  std::optional<CloseTransfer> close(TransferId transfer);
  void on(const TransferClosed& closed);  // writer pins return

  bool knows(TransferId transfer) const { return transfers_.contains(transfer); }  // also while closing
  bool has_room() const { return transfers_.size() < config_.transfers_max; }
  uint32_t open_transfers() const { return static_cast<uint32_t>(transfers_.size()); }  // including those still closing
  const Config& config() const { return config_; }
  void check_conservation() const;

 private:
  struct Transfer {
    Epoch epoch{};
    uint32_t first_block = 0;
    std::vector<SlotPin> slots;  // kWriter; block first_block + i
    std::vector<bool> landed;    // [slots][layer_count]
    size_t landed_count = 0;
    bool closing = false;
  };
  Config config_;
  KvCache& cache_;
  std::map<TransferId, Transfer> transfers_;
};

}  // namespace spillway
