#pragma once

#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/verify_routes.h"
#include "common/result.h"
#include "gateway/request_table.h"

namespace spillway {

// The same request through real processes started from `executable`: 1P1D cold, with its prefix cached (where the
// prompt fills a block), with the decode node killed and restarted between two requests, as two at once whose answers
// outgrow the nodes' KV memory (where the answer crosses a block's end), and 2P2D as two requests at once, one for each
// pair, and colocated: by one decode node that computes the prompt too. Each node has options.device_memory of KV, but
// under pressure only what the prompts take. Each outcome is compared with `expected`. Throws SetupError as
// ProcessCluster does.
std::vector<RouteOutcome> verify_processes(const Options& options, const std::string& executable,
                                           const VerifyRequest& request, const RouteResult& expected);

// An error unless both nodes found a part of the prompt in their cache.
Result<void> check_prefix_hit(const Waterfall& waterfall);

}  // namespace spillway
