#pragma once

#include <string>
#include <vector>

namespace spillway {

// Whether requests would be served now, and all that stands in the way or makes service worse; for people. A value.
struct GatewayHealth {
  bool draining = false;
  std::vector<std::string> reasons = {};   // against being ready; the first is the one that matters most
  std::vector<std::string> degraded = {};  // what does not work while the rest still serves
  bool ready() const { return reasons.empty(); }
};

}  // namespace spillway
