#include "cli/restart_policy.h"

#include <algorithm>
#include <limits>

namespace spillway {

Duration RestartPolicy::ended(TimePoint now) {
  if (settled(now)) ends_ = 0;
  if (ends_ == 0) first_end_ = now;
  if (ends_ < std::numeric_limits<uint32_t>::max()) ++ends_;
  Duration delay = std::min(config_.delay, config_.delay_max);
  for (uint32_t doubled = 1; doubled < ends_ && delay < config_.delay_max; ++doubled)
    delay = std::min(2 * delay, config_.delay_max);
  return loops() ? config_.delay_max : delay;
}

bool RestartPolicy::recovers(TimePoint now) {
  if (!loops() || !settled(now)) return false;
  ends_ = 0;
  return true;
}

TimePoint RestartPolicy::next_deadline() const {
  return loops() && ready_since_ ? *ready_since_ + config_.settled_after : kNever;
}

}  // namespace spillway
