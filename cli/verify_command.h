#pragma once

#include <span>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/verify_routes.h"

namespace spillway {

// Routes that must agree with each other: those of one numerics class.
struct VerifyGroup {
  std::string backend;  // "cpu/avx512bf16"
  std::vector<RouteOutcome> outcomes;
};

// Local routes of every ISA level that this machine has, fastest first. Levels other than `isa` are given
// `request_other`, which may be shorter: the scalar level is slow.
std::vector<VerifyGroup> verify_locally(const ModelFile& file, const std::string& isa, uint32_t threads,
                                        const VerifyRequest& request, const VerifyRequest& request_other);

std::string format_verification(std::span<const VerifyGroup> groups);

// `spillway verify`: placement invariance on this machine and model, as a table. KV memory of routes in this process
// is sized by what they need, nodes of the others get a fixed amount. Exit code 0 when every row of every group is
// equal to its group's first, 1 when not. Throws SetupError.
int verify_command(const Options& options);

}  // namespace spillway
