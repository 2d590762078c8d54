#pragma once

#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/verify_routes.h"

namespace spillway {

// The same request through real processes started from `executable`: 1P1D cold, with its prefix cached, with the decode
// node killed and restarted between two requests, and 2P2D. Each outcome is compared with `expected`. Throws SetupError
// when the nodes do not start.
std::vector<RouteOutcome> verify_processes(const Options& options, const std::string& executable,
                                           const VerifyRequest& request, const RouteResult& expected);

}  // namespace spillway
