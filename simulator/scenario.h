#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "simulator/coverage.h"
#include "simulator/interceptor.h"
#include "simulator/oracle.h"
#include "simulator/world.h"

namespace spillway {

// A random run of 1 to 3 gateways, 2 prefill and 2 decode nodes, drawn from its seed: small pools, many shared
// prefixes, K and V of either type, nodes of one numerics class or two, more requests than fit at once, and a mix of
// faults. In a third of them decode nodes colocate, mostly alone until the prefill nodes come, if these ever do.
WorldConfig draw_scenario(uint64_t seed);
inline constexpr uint32_t kScenarioRequestsMin = 20;

struct ScenarioResult {
  std::optional<std::string> breach;
  std::string log_tail;  // of the events before it
  Oracle::Totals totals;
  uint64_t faults = 0;
  Coverage coverage;
};
// Runs it to rest, then a few requests without any fault, which must succeed.
ScenarioResult run_scenario(uint64_t seed, Interceptor& interceptor);

}  // namespace spillway
