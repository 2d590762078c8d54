#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cli/configuration.h"
#include "cli/memory_plan.h"
#include "cli/options.h"

namespace spillway {

struct Machine {
  uint32_t cores = 1;
  uint64_t available_bytes = 0;
};

// What `serve --fit` chose: flags nobody gave with their values as flags take them, and why, line by line.
struct Fit {
  std::vector<std::pair<std::string, std::string>> chosen;
  std::vector<std::string> reasons;
};

// The rule (docs/configuration.md): nine tenths of the available memory are shared out. The
// context is the longest of the trained one, its half, its quarter, ... of which one request fits in every node; then
// as many sequences as fit, each counted with at most 2,048 tokens. `options` holds the values of the flags in `given`,
// which stay. Throws SetupError where not even the shortest context fits, with what would.
Fit fit(const Machine& machine, const PlannedModel& model, const Options& options, const std::set<std::string>& given);

// Fits this machine and --model, prints why on stderr, and sets what was chosen, with the origin "--fit".
void apply_fit(Configuration& configuration, const Options& options);

}  // namespace spillway
