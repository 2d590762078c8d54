#pragma once

#include <cstddef>
#include <cstdint>
#include <variant>
#include <vector>

#include "common/ids.h"
#include "kv/block.h"
#include "transfer/kv_transport.h"

namespace spillway {

// Jobs for the transfer thread, and what it answers. Values: they name slots, never memory.

struct ConnectBulk {
  PeerId peer{};  // the control channel's handle, used for bulk too
  std::vector<std::byte> endpoint;
};
struct DisconnectBulk {
  PeerId peer{};
};
// From now on frames of (transfer, epoch) from `from` land: block first_block + i in slots[i]. One entry per transfer.
struct OpenTransfer {
  TransferId transfer;
  Epoch epoch{};
  PeerId from{};
  uint32_t first_block = 0;
  std::vector<SlotId> slots;
};
struct CloseTransfer {  // nothing lands after TransferClosed came back
  TransferId transfer;
  Epoch epoch{};
};
struct SendParts {  // the slot is the transfer thread's to read until PartsSent
  SendId send{};
  PeerId to{};
  TransferId transfer;
  Epoch epoch{};
  uint32_t block_index = 0;
  SlotId slot{};
  LayerRange layers;
};
struct TransferProbe {};  // is the thread there? Answered in its turn (TransferWatch)
using TransferJob = std::variant<ConnectBulk, DisconnectBulk, OpenTransfer, CloseTransfer, SendParts, TransferProbe>;

struct BulkReady {
  PeerId peer{};
};
struct BulkLost {
  PeerId peer{};
};
struct PartsLanded {  // copied into the named slot and digested there
  TransferId transfer;
  Epoch epoch{};
  uint32_t block_index = 0;
  LayerRange layers;
  bool intact = true;  // false: digest differs; the bytes must not be used
};
struct PartsSent {
  SendId send{};
  TransferStatus status{};
};
struct TransferClosed {
  TransferId transfer;
  Epoch epoch{};
};
struct TransferAlive {};
using TransferEvent = std::variant<BulkReady, BulkLost, PartsLanded, PartsSent, TransferClosed, TransferAlive>;

}  // namespace spillway
