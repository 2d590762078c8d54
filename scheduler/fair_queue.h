#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <tuple>

#include "common/ids.h"

namespace spillway {

enum class TenantId : uint64_t {};

struct QueuedRequest {
  RequestId request;
  TenantId tenant{};
  uint64_t cost = 0;     // of its service, as far as known beforehand
  int32_t priority = 0;  // within its tenant: lower first
};

// The order of those that wait: fair among tenants by the service they got, and within a tenant requeued ones first,
// then by priority, then by arrival. The tenant with the least service goes next; one that waited for nothing starts at
// the service of the one that went last, so absence saves up nothing (the virtual token counter: Sheng et al.,
// "Fairness in Serving Large Language Models", OSDI 2024). So whoever comes alone waits behind one request of the
// others, however many they sent. A guessed cost is set right by settle().
// Pure: no clock. Bounded by what waits plus `idle_tenants_max` tenants that nothing waits for but whose service is
// ahead; the least ahead of these is forgotten first.
class FairQueue {
 public:
  explicit FairQueue(uint32_t idle_tenants_max) : idle_tenants_max_(idle_tenants_max) {}

  void push(const QueuedRequest& queued);        // REQUIRES: it does not wait
  void push_first(const QueuedRequest& queued);  // before all of its tenant. REQUIRES: it does not wait
  void requeue(const QueuedRequest& queued);     // before all of its tenant, and its cost is given back
  std::optional<RequestId> head() const;
  void pop();                     // the head goes into service: its tenant pays. REQUIRES: not empty
  void erase(RequestId request);  // without service. REQUIRES: it waits
  // `used` less or more than the `cost` that was paid at pop().
  void settle(TenantId tenant, uint64_t cost, uint64_t used);
  // Whom to turn away for one more of `newcomer`, which counts already: the last in order of the tenant with most
  // waiting, the newcomer's where several have as many. REQUIRES: not empty.
  RequestId least_deserving(TenantId newcomer) const;

  uint32_t size() const { return static_cast<uint32_t>(waiting_.size()); }
  uint32_t tenants() const { return static_cast<uint32_t>(tenants_.size()); }
  void check_conservation() const;

 private:
  // Requeued (0) or not (1), priority, arrival.
  using Rank = std::tuple<int, int32_t, uint64_t>;
  struct Tenant {
    uint64_t service = 0;
    std::map<Rank, RequestId> waiting;
  };
  struct Place {
    TenantId tenant{};
    Rank rank;
    uint64_t cost = 0;
  };
  using Tenants = std::map<TenantId, Tenant>;

  void insert(const QueuedRequest& queued, int back);
  Tenants::const_iterator next() const;
  void remove(RequestId request);
  void forget_idle();

  uint32_t idle_tenants_max_;
  uint64_t arrivals_ = 0;
  uint64_t served_ = 0;  // service of the tenant that went last, before it paid: those who come start here
  Tenants tenants_;
  std::map<RequestId, Place> waiting_;
};

}  // namespace spillway
