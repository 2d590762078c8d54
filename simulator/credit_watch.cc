#include "simulator/credit_watch.h"

#include <fmt/format.h>

namespace spillway {

void CreditWatch::told(ProcessId gateway, PeerId node, const Load& load) {
  Pair& pair = pairs_[{gateway, node}];
  pair.told = load;
  std::erase_if(pair.promised, [&](const auto& one) { return one.first.transfer.counter <= load.newest_transfer; });
}

std::optional<std::string> CreditWatch::placed(ProcessId gateway, PeerId node, const Attempt& attempt,
                                               uint32_t blocks) {
  Pair& pair = pairs_[{gateway, node}];
  if (pair.wants) ++wants_met_;
  pair.wants = false;
  const auto says = [&](std::string what) {
    return fmt::format("gateway {} {} with request {}", static_cast<uint32_t>(gateway), what, attempt.request.counter);
  };
  if (!pair.told) return says("promised what no node had told it");
  if (pair.told->draining || pair.told->stalled_ms > 0 || pair.told->transfer_stalled_ms > 0)
    return says("went to a node that drains or stalls");
  pair.promised.emplace(attempt, blocks);
  uint64_t sum = 0;
  for (const auto& [one, promised] : pair.promised) sum += promised;
  if (sum > pair.told->blocks_share)
    return says(fmt::format("promised {} blocks of its share of {}", sum, pair.told->blocks_share));
  if (pair.promised.size() > pair.told->sequences_share)
    return says(
        fmt::format("promised {} sequences of its share of {}", pair.promised.size(), pair.told->sequences_share));
  return std::nullopt;
}

void CreditWatch::over(ProcessId gateway, PeerId node, const Attempt& attempt) {
  const auto pair = pairs_.find({gateway, node});
  if (pair != pairs_.end()) pair->second.promised.erase(attempt);
}

void CreditWatch::over(ProcessId gateway, RequestId request) {
  for (auto& [key, pair] : pairs_) {
    if (key.first == gateway)
      std::erase_if(pair.promised, [&](const auto& one) { return one.first.request == request; });
  }
}

void CreditWatch::wanted(ProcessId gateway, PeerId node, const Want& want) {
  bool& wants = pairs_[{gateway, node}].wants;
  if (want.blocks > 0 && !wants) ++wants_made_;
  wants = want.blocks > 0;
}

void CreditWatch::forget(ProcessId gateway, PeerId node) { pairs_.erase({gateway, node}); }

void CreditWatch::forget(ProcessId gateway) {
  std::erase_if(pairs_, [&](const auto& one) { return one.first.first == gateway; });
}

}  // namespace spillway
