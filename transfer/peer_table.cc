#include "transfer/peer_table.h"

#include <algorithm>

namespace spillway {

PeerTable::PeerTable(const Config& config) : config_(config), credits_(config.blocks_total) {}

bool PeerTable::wants_bulk(const Hello& hello) const {
  return hello.role == config_.bulk_role && !hello.bulk_endpoint.empty();
}

std::optional<ConnectBulk> PeerTable::add(const PeerUp& up) {
  if (peers_.size() >= config_.peers_max || peers_.contains(up.peer)) return std::nullopt;
  peers_[up.peer].hello = up.hello;
  if (up.hello.role == Role::kGateway) credits_.join(up.peer);
  if (!wants_bulk(up.hello)) return std::nullopt;
  return ConnectBulk{up.peer, up.hello.bulk_endpoint};
}

std::optional<DisconnectBulk> PeerTable::remove(PeerId peer) {
  const auto entry = peers_.find(peer);
  if (entry == peers_.end()) return std::nullopt;
  const bool has_bulk = wants_bulk(entry->second.hello);
  peers_.erase(entry);
  credits_.leave(peer);
  if (!has_bulk) return std::nullopt;
  return DisconnectBulk{peer};
}

const Hello* PeerTable::hello(PeerId peer) const {
  const auto entry = peers_.find(peer);
  return entry == peers_.end() ? nullptr : &entry->second.hello;
}

bool PeerTable::is(PeerId peer, Role role) const {
  const Hello* const known = hello(peer);
  return known != nullptr && known->role == role;
}

std::optional<PeerId> PeerTable::find(BootId boot) const {
  std::optional<PeerId> latest;
  for (const auto& [peer, entry] : peers_) {
    if (entry.hello.boot == boot) latest = peer;
  }
  return latest;
}

std::string PeerTable::name_of(BootId boot) const {
  const std::optional<PeerId> peer = find(boot);
  return peer ? process_name(*hello(*peer)) : "a node that is gone";
}

bool PeerTable::is_process(PeerId peer, BootId boot) const {
  const Hello* const known = hello(peer);
  return known != nullptr && known->boot == boot;
}

bool PeerTable::bulk_ready(PeerId peer) const {
  const auto entry = peers_.find(peer);
  return entry != peers_.end() && entry->second.bulk_ready;
}

void PeerTable::on(const BulkReady& ready) {
  const auto entry = peers_.find(ready.peer);
  if (entry == peers_.end()) return;
  entry->second.bulk_ready = true;
  entry->second.bulk_retry_at = kNever;
}

bool PeerTable::on(const BulkLost& lost, TimePoint now) {
  const auto entry = peers_.find(lost.peer);
  if (entry == peers_.end() || !wants_bulk(entry->second.hello)) return false;
  const bool was_ready = entry->second.bulk_ready;
  entry->second.bulk_ready = false;
  entry->second.bulk_retry_at = now + config_.bulk_retry;
  return was_ready;
}

void PeerTable::retry_bulk(TimePoint now, std::vector<ConnectBulk>& jobs) {
  for (auto& [peer, entry] : peers_) {
    if (entry.bulk_retry_at > now) continue;
    entry.bulk_retry_at = kNever;
    jobs.push_back({peer, entry.hello.bulk_endpoint});
  }
}

TimePoint PeerTable::next_deadline() const {
  TimePoint earliest = credits_.next_deadline();
  for (const auto& [peer, entry] : peers_) earliest = std::min(earliest, entry.bulk_retry_at);
  return earliest;
}

std::vector<std::pair<PeerId, Load>> PeerTable::loads_to_tell(const Load& node, uint32_t sequences_free) {
  std::vector<std::pair<PeerId, Load>> loads;
  for (const auto& [gateway, credits] : credits_.split({node.blocks_free, sequences_free})) {
    Peer& entry = peers_.at(gateway);
    Load load = node;
    load.blocks_share = credits.blocks;
    load.sequences_share = credits.sequences;
    load.newest_transfer = entry.newest_transfer;
    if (entry.told == load) continue;
    entry.told = load;
    loads.emplace_back(gateway, load);
  }
  return loads;
}

void PeerTable::on(PeerId from, const Want& want, TimePoint now) { credits_.want(from, want.blocks, now); }

void PeerTable::placed(PeerId gateway, TransferId transfer, bool taken) {
  const auto entry = peers_.find(gateway);
  if (entry == peers_.end()) return;
  entry->second.newest_transfer = std::max(entry->second.newest_transfer, transfer.counter);
  if (taken) credits_.end_want(gateway);
}

void PeerTable::end_wants(TimePoint now) { credits_.end_due(now); }

void PeerTable::may_leave(PeerId gateway) {
  const auto entry = peers_.find(gateway);
  if (entry != peers_.end()) entry->second.let_go = true;
}

bool PeerTable::all_gateways_let_go() const {
  return std::ranges::all_of(
      peers_, [](const auto& entry) { return entry.second.hello.role != Role::kGateway || entry.second.let_go; });
}

}  // namespace spillway
