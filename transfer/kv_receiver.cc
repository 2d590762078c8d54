#include "transfer/kv_receiver.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

KvReceiver::KvReceiver(const Config& config, KvCache& cache) : config_(config), cache_(cache) {
  CHECK(config.layer_count > 0 && config.layer_count <= UINT16_MAX);
}

std::optional<OpenTransfer> KvReceiver::open(TransferId transfer, Epoch epoch, PeerId from, uint32_t first_block,
                                             std::vector<SlotId> slots) {
  CHECK(!knows(transfer) && has_room());
  Transfer& entry = transfers_[transfer];
  entry.epoch = epoch;
  entry.first_block = first_block;
  entry.landed.resize(slots.size() * config_.layer_count);
  entry.slots.reserve(slots.size());
  for (const SlotId slot : slots) entry.slots.push_back(cache_.pin(slot, PinKind::kWriter));
  if (slots.empty()) return std::nullopt;
  return OpenTransfer{transfer, epoch, from, first_block, std::move(slots)};
}

KvReceiver::Landing KvReceiver::on(const PartsLanded& landed) {
  const auto found = transfers_.find(landed.transfer);
  if (found == transfers_.end()) return Landing::kIgnored;
  Transfer& entry = found->second;
  if (entry.closing || entry.epoch != landed.epoch) return Landing::kIgnored;
  const uint32_t layer_end = uint32_t{landed.layers.first} + landed.layers.count;
  if (landed.block_index < entry.first_block || layer_end > config_.layer_count) return Landing::kIgnored;
  const size_t block = landed.block_index - entry.first_block;
  if (block >= entry.slots.size()) return Landing::kIgnored;
  if (!landed.intact) return Landing::kCorrupt;
  size_t fresh = 0;
  for (uint32_t layer = landed.layers.first; layer < layer_end; ++layer) {
    const size_t part = block * config_.layer_count + layer;
    if (entry.landed[part]) continue;
    entry.landed[part] = true;
    ++fresh;
  }
  entry.landed_count += fresh;
  return fresh == 0 ? Landing::kIgnored : Landing::kCounted;
}

bool KvReceiver::complete(TransferId transfer) const {
  const auto found = transfers_.find(transfer);
  if (found == transfers_.end() || found->second.closing) return false;
  return found->second.landed_count == found->second.landed.size();
}

std::optional<CloseTransfer> KvReceiver::close(TransferId transfer) {
  const auto found = transfers_.find(transfer);
  if (found == transfers_.end() || found->second.closing) return std::nullopt;
  if (found->second.slots.empty()) {  // the transfer thread never heard of it
    transfers_.erase(found);
    return std::nullopt;
  }
  found->second.closing = true;
  return CloseTransfer{transfer, found->second.epoch};
}

void KvReceiver::on(const TransferClosed& closed) {
  const auto found = transfers_.find(closed.transfer);
  if (found == transfers_.end() || !found->second.closing || found->second.epoch != closed.epoch) return;
  transfers_.erase(found);
}

void KvReceiver::check_conservation() const {
  CHECK(transfers_.size() <= config_.transfers_max);
  for (const auto& [id, entry] : transfers_) {
    CHECK(entry.landed.size() == entry.slots.size() * config_.layer_count);
    CHECK(entry.landed_count == static_cast<size_t>(std::count(entry.landed.begin(), entry.landed.end(), true)));
    for (const SlotPin& pin : entry.slots) CHECK(pin);
  }
}

}  // namespace spillway
