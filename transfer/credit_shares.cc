#include "transfer/credit_shares.h"

#include <algorithm>

#include "common/check.h"

namespace spillway {
namespace {

uint32_t take(uint32_t& left, uint32_t wanted) {
  const uint32_t taken = std::min(left, wanted);
  left -= taken;
  return taken;
}

}  // namespace

void CreditShares::join(PeerId gateway) {
  CHECK(std::ranges::find(gateways_, gateway) == gateways_.end());
  gateways_.push_back(gateway);
}

void CreditShares::leave(PeerId gateway) {
  end_want(gateway);
  std::erase(gateways_, gateway);
}

void CreditShares::want(PeerId gateway, uint32_t blocks, TimePoint now) {
  if (std::ranges::find(gateways_, gateway) == gateways_.end()) return;
  if (blocks == 0 || blocks > blocks_total_) return end_want(gateway);
  auto standing = std::ranges::find(wants_, gateway, &Standing::gateway);
  if (standing == wants_.end()) standing = wants_.insert(standing, {gateway, 0, {}});
  standing->blocks = blocks;
  standing->until = now + kWantLease;
}

void CreditShares::end_want(PeerId gateway) {
  std::erase_if(wants_, [&](const Standing& one) { return one.gateway == gateway; });
}

void CreditShares::end_due(TimePoint now) {
  std::erase_if(wants_, [&](const Standing& one) { return one.until <= now; });
}

TimePoint CreditShares::next_deadline() const {
  TimePoint earliest = kNever;
  for (const Standing& one : wants_) earliest = std::min(earliest, one.until);
  return earliest;
}

std::vector<CreditShares::Share> CreditShares::split(Credits free) const {
  std::vector<Share> shares;
  for (const PeerId gateway : gateways_) shares.push_back({gateway, {}});
  for (const Standing& one : wants_) {
    Credits& credits = std::ranges::find(shares, one.gateway, &Share::gateway)->credits;
    credits.blocks = take(free.blocks, one.blocks);
    credits.sequences = take(free.sequences, 1);
  }
  // The rest among those that want nothing; among all where each wants something.
  std::vector<Credits*> others;
  const bool all = wants_.size() == shares.size();
  for (Share& share : shares) {
    if (all || std::ranges::find(wants_, share.gateway, &Standing::gateway) == wants_.end())
      others.push_back(&share.credits);
  }
  const auto count = static_cast<uint32_t>(others.size());
  for (uint32_t index = 0; index < count; ++index) {
    others[index]->blocks += free.blocks / count + (index < free.blocks % count ? 1 : 0);
    others[index]->sequences += free.sequences / count + (index < free.sequences % count ? 1 : 0);
  }
  return shares;
}

}  // namespace spillway
