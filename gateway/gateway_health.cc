// What Gateway says of itself.
#include "gateway/gateway_health.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "common/check.h"
#include "gateway/gateway.h"

namespace spillway {
namespace {

bool contains(const std::vector<std::string>& lines, const std::string& line) {
  return std::ranges::find(lines, line) != lines.end();
}

// A node that does both parts has its troubles in both.
void add_once(const std::vector<std::string>& troubles, std::vector<std::string>& lines) {
  for (const std::string& trouble : troubles)
    if (!contains(lines, trouble)) lines.push_back(trouble);
}

}  // namespace

GatewayHealth Gateway::health(TimePoint now) const {
  GatewayHealth health;
  health.draining = draining_;
  if (draining_)
    health.reasons.push_back(fmt::format("the gateway is draining: {} requests are under way and {} wait",
                                         requests_.running(), requests_.queued()));
  for (const Role role : {Role::kPrefill, Role::kDecode}) {
    if (!nodes_.any_for(role)) {
      health.reasons.push_back(fmt::format("no {} node is connected", role_name(role)));
      continue;
    }
    const NodeTable::Capacity capacity = nodes_.capacity(role);
    add_once(capacity.troubles, capacity.working == 0 ? health.reasons : health.degraded);
  }
  std::erase_if(health.degraded, [&](const std::string& one) { return contains(health.reasons, one); });
  if (requests_.running() > 0 && now - moved_at_ >= config_.standstill_max)
    health.reasons.push_back(fmt::format("none of the {} requests under way came forward for {:.0f} s",
                                         requests_.running(), seconds(now - moved_at_)));
  // Where there is a reason already, it is why.
  if (requests_.running() == 0 && requests_.queued() > 0 && now - moved_at_ >= config_.standstill_max &&
      health.reasons.empty())
    health.reasons.push_back(fmt::format("none of the {} requests that wait was placed for {:.0f} s, and no node moves",
                                         requests_.queued(), seconds(now - moved_at_)));
  return health;
}

GatewayCounters Gateway::counters() const {
  GatewayCounters counters = counters_;
  counters.queued = requests_.queued();
  counters.running = requests_.running();
  counters.prefill_nodes = nodes_.count(Role::kPrefill);
  counters.decode_nodes = nodes_.count(Role::kDecode);
  counters.blocks_total = nodes_.blocks_total();
  counters.blocks_free = nodes_.blocks_free();
  counters.prefill = nodes_.counts(Role::kPrefill);
  counters.decode = nodes_.counts(Role::kDecode);
  counters.preemption = nodes_.preemption_counts();
  return counters;
}

void Gateway::check_conservation() const {
  requests_.check_conservation();
  CHECK(requests_.queued() <= config_.queue_max + config_.running_max + config_.held_max &&
        requests_.running() <= config_.running_max);
  size_t open_legs = 0;
  std::map<RequestId, const RunningAttempt*> running;
  requests_.select([&](const GatewayRequest& one) {
    if (one.running) {
      running.emplace(one.work.request, &*one.running);
      open_legs += (one.running->prefill.open ? 1u : 0u) + (one.running->decode.open ? 1u : 0u);
    }
    return false;
  });
  const size_t shares = nodes_.check_shares([&](PeerId node, RequestId request) {
    const auto entry = running.find(request);
    if (entry == running.end()) return false;
    const RunningAttempt& one = *entry->second;
    return (one.prefill.open && one.prefill.node == node) || (one.decode.open && one.decode.node == node);
  });
  CHECK(shares <= open_legs);
}

}  // namespace spillway
