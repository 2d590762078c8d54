#include "transfer/transfer_worker.h"

#include <utility>
#include <variant>

#include "common/check.h"
#include "kv/digest.h"

namespace spillway {
namespace {

constexpr size_t kFramesPerTurn = 16;  // bounds how long a new job waits: 16 copies of one frame

}  // namespace

TransferWorker::TransferWorker(std::unique_ptr<KvTransport> transport, const SlotArena& arena, const Limits& limits)
    : transport_(std::move(transport)), arena_(arena), limits_(limits), found_(kFramesPerTurn) {}

void TransferWorker::submit(TransferJob job) {
  CHECK(jobs_.size() < limits_.jobs_max);
  jobs_.push_back(std::move(job));
}

size_t TransferWorker::turn(std::vector<TransferEvent>& events) {
  events_ = &events;
  size_t done = jobs_.size() + found_count_;
  for (; !jobs_.empty(); jobs_.pop_front()) std::visit([this](auto&& job) { run(std::move(job)); }, jobs_.front());
  for (size_t i = 0; i < found_count_; ++i) std::visit([this](const auto& event) { on(event); }, found_[i]);
  found_count_ = transport_->poll(found_);
  done += found_count_;
  events_ = nullptr;
  return done;
}

void TransferWorker::run(ConnectBulk&& job) {
  CHECK(!peers_.contains(job.peer));
  peers_[job.peer];
  transport_->connect(job.peer, job.endpoint);
}

void TransferWorker::run(DisconnectBulk&& job) {
  if (peers_.contains(job.peer)) transport_->disconnect(job.peer);  // else its BulkLost is on the way already
}

void TransferWorker::run(OpenTransfer&& job) {
  CHECK(!open_.contains(job.transfer) && open_.size() < limits_.transfers_max);
  for (const SlotId slot : job.slots) CHECK(checked_cast<uint32_t>(slot) < arena_.slot_count);
  Open& open = open_[job.transfer];
  open.job = std::move(job);
  open.taken.resize(open.job.slots.size() * arena_.layout.layer_count);
}

void TransferWorker::run(CloseTransfer&& job) {
  const auto found = open_.find(job.transfer);
  if (found != open_.end() && found->second.job.epoch == job.epoch) {
    found->second.closing = true;
    if (found->second.landing > 0) return;  // answered by the last Landed
    open_.erase(found);
  }
  events_->push_back(TransferClosed{job.transfer, job.epoch});
}

void TransferWorker::run(SendParts&& job) {
  const auto found = peers_.find(job.to);
  if (found == peers_.end()) {
    events_->push_back(PartsSent{job.send, TransferStatus::kPeerLost});
    return;
  }
  CHECK(found->second.waiting.size() < limits_.jobs_max);
  found->second.waiting.push_back(job);
  send_waiting(job.to);
}

void TransferWorker::run(TransferProbe&&) { events_->push_back(TransferAlive{}); }

void TransferWorker::send_waiting(PeerId id) {
  Peer& peer = peers_.at(id);
  for (; peer.ready && !peer.waiting.empty() && peer.in_flight < transport_->window(); peer.waiting.pop_front()) {
    ++peer.in_flight;
    send(peer.waiting.front());
  }
}

void TransferWorker::send(const SendParts& job) {
  const std::span<const std::byte> payload = arena_.parts(job.slot, job.layers);
  const size_t part_bytes = arena_.layout.part_bytes();
  part_digests_.clear();
  for (size_t offset = 0; offset < payload.size(); offset += part_bytes)
    part_digests_.push_back(part_digest(payload.subspan(offset, part_bytes)));
  const FrameHeader header{job.transfer,
                           job.epoch,
                           job.block_index,
                           job.layers,
                           checked_cast<uint32_t>(payload.size()),
                           combine_digests(part_digests_)};
  CHECK(sends_.emplace(job.send, job.to).second);
  transport_->send(job.send, job.to, header, payload);
}

void TransferWorker::on(const PeerReady& event) {
  peers_.at(event.peer).ready = true;
  events_->push_back(BulkReady{event.peer});
  send_waiting(event.peer);
}

// The open transfer that wants this frame, its parts marked as taken; else why not is counted.
TransferWorker::Open* TransferWorker::admit(const Arrived& event) {
  const FrameHeader& header = event.header;
  const auto refuse = [](uint64_t& counter) -> Open* {
    ++counter;
    return nullptr;
  };
  const auto found = open_.find(header.transfer);
  if (found == open_.end() || found->second.closing) return refuse(counts_.refused_transfer);
  Open& open = found->second;
  if (open.job.epoch != header.epoch) return refuse(counts_.refused_epoch);
  if (open.job.from != event.peer) return refuse(counts_.refused_peer);
  const uint32_t layer_count = arena_.layout.layer_count;
  const uint64_t layers_end = uint64_t{header.layers.first} + header.layers.count;
  if (header.block_index < open.job.first_block || header.block_index - open.job.first_block >= open.job.slots.size() ||
      header.layers.count == 0 || layers_end > layer_count ||
      header.bytes != header.layers.count * arena_.layout.part_bytes())
    return refuse(counts_.refused_shape);
  const size_t row = size_t{header.block_index - open.job.first_block} * layer_count;
  for (uint64_t layer = header.layers.first; layer < layers_end; ++layer)
    if (open.taken[row + layer]) return refuse(counts_.refused_doubled);
  for (uint64_t layer = header.layers.first; layer < layers_end; ++layer) open.taken[row + layer] = true;
  return &open;
}

void TransferWorker::on(const Arrived& event) {
  Open* const open = admit(event);
  if (open == nullptr) return transport_->refuse(event.arrival);
  ++open->landing;
  landing_[event.arrival] = event.header;
  const SlotId slot = open->job.slots[event.header.block_index - open->job.first_block];
  transport_->accept(event.arrival, arena_.parts(slot, event.header.layers), arena_.layout.part_bytes());
}

void TransferWorker::on(const Landed& event) {
  const auto node = landing_.extract(event.arrival);
  CHECK(!node.empty());
  const FrameHeader& header = node.mapped();
  const auto found = open_.find(header.transfer);
  CHECK(found != open_.end() && found->second.landing > 0);
  --found->second.landing;
  if (event.status == TransferStatus::kOk) {
    const bool intact = event.digest == header.digest;
    ++(intact ? counts_.landed : counts_.corrupt);
    events_->push_back(PartsLanded{header.transfer, header.epoch, header.block_index, header.layers, intact});
  }
  if (!found->second.closing || found->second.landing > 0) return;
  open_.erase(found);
  events_->push_back(TransferClosed{header.transfer, header.epoch});
}

void TransferWorker::on(const Sent& event) {
  const auto node = sends_.extract(event.send);
  CHECK(!node.empty());
  events_->push_back(PartsSent{event.send, event.status});
  const auto peer = peers_.find(node.mapped());
  if (peer == peers_.end()) return;  // given to the transport after the peer was lost
  --peer->second.in_flight;
  send_waiting(node.mapped());
}

void TransferWorker::on(const PeerLost& event) {
  const auto node = peers_.extract(event.peer);
  for (const SendParts& job : node.mapped().waiting) events_->push_back(PartsSent{job.send, TransferStatus::kPeerLost});
  events_->push_back(BulkLost{event.peer});
}

}  // namespace spillway
