#include "gateway/room_wants.h"

#include <algorithm>

#include "transfer/credit_shares.h"

namespace spillway {

std::vector<std::pair<PeerId, Want>> RoomWants::set(std::optional<RequestId> head, std::span<const RoomWanted> wanted,
                                                    TimePoint now) {
  std::vector<std::pair<PeerId, Want>> said;
  const bool other_head = head != head_;
  head_ = head;
  for (auto entry = standing_.begin(); entry != standing_.end();) {
    if (!other_head && std::ranges::find(wanted, entry->first, &RoomWanted::node) != wanted.end()) {
      ++entry;
      continue;
    }
    said.emplace_back(entry->first, Want{0});
    entry = standing_.erase(entry);
  }
  for (const RoomWanted& one : wanted) {
    const auto [entry, is_new] = standing_.try_emplace(one.node);
    Standing& standing = entry->second;
    if (!is_new && standing.blocks == one.blocks && standing.renew_at > now) continue;
    standing = {one.blocks, now + kWantRenewal};
    said.emplace_back(one.node, Want{one.blocks});
  }
  return said;
}

std::vector<PeerId> RoomWants::asked_for(RequestId head) const {
  std::vector<PeerId> nodes;
  if (head_ != head) return nodes;
  for (const auto& [node, standing] : standing_) nodes.push_back(node);
  return nodes;
}

TimePoint RoomWants::next_deadline() const {
  TimePoint earliest = kNever;
  for (const auto& [node, standing] : standing_) earliest = std::min(earliest, standing.renew_at);
  return earliest;
}

}  // namespace spillway
