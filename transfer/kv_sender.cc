#include "transfer/kv_sender.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

KvSender::KvSender(const Config& config, KvCache& cache) : config_(config), cache_(cache) {
  CHECK(config.layer_count > 0 && config.layer_count <= UINT16_MAX);
  CHECK(config.window > 0 && config.sends_max >= config.window && config.layers_per_frame > 0);
}

KvSender::Transfer* KvSender::find(TransferId transfer) {
  const auto serial = serials_.find(transfer);
  return serial == serials_.end() ? nullptr : &transfers_.at(serial->second);
}

void KvSender::begin(TransferId transfer, Epoch epoch, uint32_t block_count) {
  CHECK(!knows(transfer) && has_room());
  Transfer entry;
  entry.id = transfer;
  entry.epoch = epoch;
  entry.blocks.resize(block_count);
  serials_.emplace(transfer, next_serial_);
  transfers_.emplace(next_serial_++, std::move(entry));
}

void KvSender::grant(TransferId transfer, Epoch epoch, PeerId to, uint32_t first_block) {
  Transfer* const entry = find(transfer);
  if (entry == nullptr || entry->epoch != epoch || entry->first_block) return;
  CHECK(first_block <= entry->blocks.size());
  entry->to = to;
  entry->first_block = first_block;
  for (uint32_t block = 0; block < first_block; ++block) entry->blocks[block] = Block{};
  std::erase_if(entry->offers, [&](const Offer& offer) { return offer.block_index < first_block; });
}

void KvSender::offer(TransferId transfer, uint32_t block_index, SlotId slot, LayerRange layers) {
  Transfer* const entry = find(transfer);
  CHECK(entry != nullptr && block_index < entry->blocks.size());
  CHECK(uint32_t{layers.first} + layers.count <= config_.layer_count);
  if (entry->first_block && block_index < *entry->first_block) return;
  Block& block = entry->blocks[block_index];
  if (block.parts.empty()) block.parts.resize(config_.layer_count, Part::kAbsent);
  const uint32_t ready_before = block.ready;
  for (uint32_t layer = layers.first; layer < uint32_t{layers.first} + layers.count; ++layer) {
    if (block.parts[layer] != Part::kAbsent) continue;
    block.parts[layer] = Part::kReady;
    ++block.ready;
  }
  if (block.ready == ready_before) return;
  if (!block.pin) block.pin = cache_.pin(slot, PinKind::kReader);
  CHECK(block.pin.slot() == slot);
  entry->offers.push_back({block_index, layers});
}

// The next parts to send: from the oldest offer on, adjacent ready layers of its block up to a full frame. Layers that
// a later offer made ready ride along, so a full window makes frames longer instead of more.
bool KvSender::next_run(Transfer& transfer, Offer& run) {
  while (!transfer.offers.empty()) {
    const Offer& front = transfer.offers.front();
    const std::vector<Part>& parts = transfer.blocks[front.block_index].parts;
    const uint32_t end = uint32_t{front.layers.first} + front.layers.count;
    uint32_t first = front.layers.first;
    while (first < end && parts[first] != Part::kReady) ++first;
    if (first == end) {
      transfer.offers.pop_front();
      continue;
    }
    uint32_t count = 1;
    while (count < config_.layers_per_frame && first + count < parts.size() && parts[first + count] == Part::kReady) {
      ++count;
    }
    run = {front.block_index, {checked_cast<uint16_t>(first), checked_cast<uint16_t>(count)}};
    return true;
  }
  return false;
}

SendParts KvSender::start(uint64_t serial, Transfer& transfer, const Offer& run, TimePoint now) {
  Block& block = transfer.blocks[run.block_index];
  const SlotId slot = block.pin.slot();
  const auto first = block.parts.begin() + run.layers.first;
  std::fill(first, first + run.layers.count, Part::kInFlight);
  block.ready -= run.layers.count;
  const SendId send{next_send_++};
  in_flight_.emplace(send, InFlight{serial, transfer.to, now + config_.answer_max, run.block_index, run.layers,
                                    cache_.pin(slot, PinKind::kReader)});
  ++peers_[transfer.to].in_flight;
  if (block.ready == 0) block.pin.release();
  return {send, transfer.to, transfer.id, transfer.epoch, run.block_index, slot, run.layers};
}

bool KvSender::may_send(PeerId to) const {
  if (in_flight_.size() >= config_.sends_max) return false;
  const auto peer = peers_.find(to);
  return peer == peers_.end() || (!peer->second.given_up && peer->second.in_flight < config_.window);
}

void KvSender::plan(TimePoint now, std::vector<SendParts>& jobs) {
  for (auto& [serial, transfer] : transfers_) {
    if (!transfer.first_block) continue;
    Offer run;
    while (may_send(transfer.to) && next_run(transfer, run)) jobs.push_back(start(serial, transfer, run, now));
  }
}

std::vector<PeerId> KvSender::give_up_silent(TimePoint now) {
  std::vector<PeerId> silent;
  for (const auto& [send, parts] : in_flight_) {
    if (parts.answer_by > now) break;
    Peer& peer = peers_.at(parts.to);
    if (!std::exchange(peer.given_up, true)) silent.push_back(parts.to);
  }
  return silent;
}

TimePoint KvSender::next_deadline() const {
  for (const auto& [send, parts] : in_flight_) {
    if (!peers_.at(parts.to).given_up) return parts.answer_by;
  }
  return kNever;
}

std::optional<KvSender::Outcome> KvSender::on(const PartsSent& sent) {
  const auto entry = in_flight_.find(sent.send);
  if (entry == in_flight_.end()) return std::nullopt;
  const InFlight done = std::move(entry->second);
  in_flight_.erase(entry);
  const auto peer = peers_.find(done.to);
  if (--peer->second.in_flight == 0) peers_.erase(peer);
  const auto transfer = transfers_.find(done.serial);
  if (transfer == transfers_.end()) return std::nullopt;
  if (sent.status == TransferStatus::kOk) {
    const auto first = transfer->second.blocks[done.block_index].parts.begin() + done.layers.first;
    std::fill(first, first + done.layers.count, Part::kSent);
    transfer->second.parts_sent += done.layers.count;
  }
  return Outcome{transfer->second.id, sent.status};
}

bool KvSender::all_sent(TransferId transfer) const {
  const auto serial = serials_.find(transfer);
  if (serial == serials_.end()) return false;
  const Transfer& entry = transfers_.at(serial->second);
  if (!entry.first_block) return false;
  return entry.parts_sent == uint64_t{entry.blocks.size() - *entry.first_block} * config_.layer_count;
}

void KvSender::end(TransferId transfer) {
  const auto serial = serials_.find(transfer);
  if (serial == serials_.end()) return;
  transfers_.erase(serial->second);
  serials_.erase(serial);
}

void KvSender::check_conservation() const {
  CHECK(serials_.size() == transfers_.size() && transfers_.size() <= config_.transfers_max);
  CHECK(in_flight_.size() <= config_.sends_max);
  for (const auto& [send, parts] : in_flight_) CHECK(parts.pin);
  size_t counted = 0;
  for (const auto& [id, peer] : peers_) {
    CHECK(peer.in_flight > 0 && peer.in_flight <= config_.window);
    counted += peer.in_flight;
  }
  CHECK(counted == in_flight_.size());
  for (const auto& [serial, transfer] : transfers_) {
    CHECK(serials_.at(transfer.id) == serial);
    uint64_t sent = 0;
    for (const Block& block : transfer.blocks) {
      CHECK(static_cast<bool>(block.pin) == (block.ready > 0));
      CHECK(block.ready == static_cast<uint32_t>(std::count(block.parts.begin(), block.parts.end(), Part::kReady)));
      sent += static_cast<uint64_t>(std::count(block.parts.begin(), block.parts.end(), Part::kSent));
    }
    CHECK(sent == transfer.parts_sent);
  }
}

}  // namespace spillway
