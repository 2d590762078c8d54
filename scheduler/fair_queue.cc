#include "scheduler/fair_queue.h"

#include <algorithm>

#include "common/check.h"

namespace spillway {

void FairQueue::insert(const QueuedRequest& queued, int back) {
  const auto [entry, is_new] = tenants_.try_emplace(queued.tenant);
  Tenant& tenant = entry->second;
  if (is_new || tenant.waiting.empty()) tenant.service = std::max(tenant.service, served_);
  const Rank rank{back, queued.priority, ++arrivals_};
  tenant.waiting.emplace(rank, queued.request);
  CHECK(waiting_.emplace(queued.request, Place{queued.tenant, rank, queued.cost}).second);
}

void FairQueue::push(const QueuedRequest& queued) { insert(queued, 1); }

void FairQueue::push_first(const QueuedRequest& queued) { insert(queued, 0); }

void FairQueue::requeue(const QueuedRequest& queued) {
  settle(queued.tenant, queued.cost, 0);
  insert(queued, 0);
}

// Ties go to whose first has waited longest.
FairQueue::Tenants::const_iterator FairQueue::next() const {
  auto best = tenants_.end();
  const auto order = [](const Tenant& tenant) {
    const Rank& first = tenant.waiting.begin()->first;
    return std::tuple(tenant.service, std::get<0>(first), std::get<2>(first));
  };
  for (auto entry = tenants_.begin(); entry != tenants_.end(); ++entry) {
    if (entry->second.waiting.empty()) continue;
    if (best == tenants_.end() || order(entry->second) < order(best->second)) best = entry;
  }
  return best;
}

std::optional<RequestId> FairQueue::head() const {
  const auto tenant = next();
  if (tenant == tenants_.end()) return std::nullopt;
  return tenant->second.waiting.begin()->second;
}

void FairQueue::pop() {
  const auto entry = next();
  CHECK(entry != tenants_.end());
  const RequestId request = entry->second.waiting.begin()->second;
  Tenant& tenant = tenants_.at(entry->first);
  served_ = std::max(served_, tenant.service);
  tenant.service += waiting_.at(request).cost;
  remove(request);
}

void FairQueue::erase(RequestId request) { remove(request); }

void FairQueue::remove(RequestId request) {
  const auto place = waiting_.find(request);
  CHECK(place != waiting_.end());
  CHECK(tenants_.at(place->second.tenant).waiting.erase(place->second.rank) == 1);
  waiting_.erase(place);
  forget_idle();
}

void FairQueue::settle(TenantId tenant, uint64_t cost, uint64_t used) {
  if (used == cost) return;
  const auto entry = tenants_.try_emplace(tenant, Tenant{served_, {}}).first;
  uint64_t& service = entry->second.service;
  if (used > cost) {
    service += used - cost;
  } else {
    service -= std::min(service, cost - used);
  }
  forget_idle();
}

RequestId FairQueue::least_deserving(TenantId newcomer) const {
  const auto size = [](const auto& entry) { return entry.second.waiting.size(); };
  auto most = std::ranges::max_element(tenants_, {}, size);
  CHECK(most != tenants_.end() && !most->second.waiting.empty());
  const auto own = tenants_.find(newcomer);
  if (own != tenants_.end() && size(*own) == size(*most)) most = own;
  return most->second.waiting.rbegin()->second;
}

// A tenant that nothing waits for would start at `served_`: only what it is ahead of that is worth keeping.
void FairQueue::forget_idle() {
  std::erase_if(tenants_,
                [&](const auto& entry) { return entry.second.waiting.empty() && entry.second.service <= served_; });
  const auto idle = [](const auto& entry) { return entry.second.waiting.empty(); };
  while (std::ranges::count_if(tenants_, idle) > static_cast<std::ptrdiff_t>(idle_tenants_max_)) {
    auto least = tenants_.end();
    for (auto entry = tenants_.begin(); entry != tenants_.end(); ++entry) {
      if (!idle(*entry)) continue;
      if (least == tenants_.end() || entry->second.service < least->second.service) least = entry;
    }
    tenants_.erase(least);
  }
}

void FairQueue::check_conservation() const {
  size_t waiting = 0, idle = 0;
  for (const auto& [id, tenant] : tenants_) {
    waiting += tenant.waiting.size();
    idle += tenant.waiting.empty() ? 1 : 0;
    for (const auto& [rank, request] : tenant.waiting) {
      const auto place = waiting_.find(request);
      CHECK(place != waiting_.end() && place->second.tenant == id && place->second.rank == rank);
    }
  }
  CHECK(waiting == waiting_.size() && idle <= idle_tenants_max_);
}

}  // namespace spillway
