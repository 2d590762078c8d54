#pragma once

#include <cstddef>
#include <unordered_map>

#include "common/check.h"
#include "scheduler/fair_queue.h"

namespace spillway {

// Bytes in memory for clients, bounded for all together and for one tenant. One thread.
class ByteBudget {
 public:
  ByteBudget(size_t total_max, size_t tenant_max) : total_max_(total_max), tenant_max_(tenant_max) {}

  // False: no room, and nothing was taken.
  bool take(TenantId tenant, size_t bytes) {
    if (bytes == 0) return true;
    const auto own = of_tenants_.find(tenant);
    if (bytes > total_max_ - total_ || bytes > tenant_max_ - (own == of_tenants_.end() ? 0 : own->second)) return false;
    total_ += bytes;
    of_tenants_[tenant] += bytes;
    return true;
  }
  // REQUIRES: taken before.
  void give(TenantId tenant, size_t bytes) {
    if (bytes == 0) return;
    size_t& own = of_tenants_.at(tenant);
    CHECK(bytes <= own && bytes <= total_);
    total_ -= bytes;
    own -= bytes;
    if (own == 0) of_tenants_.erase(tenant);
  }

 private:
  const size_t total_max_, tenant_max_;
  size_t total_ = 0;
  std::unordered_map<TenantId, size_t> of_tenants_;  // that have some
};

}  // namespace spillway
