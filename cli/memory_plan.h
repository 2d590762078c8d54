#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "cli/options.h"
#include "model/model_config.h"

namespace spillway {

// What one process of a role will hold, in bytes, from the settings alone.
struct MemoryPlan {
  struct Line {
    std::string what;
    uint64_t bytes = 0;
  };
  std::vector<Line> lines;
  uint64_t total() const;
};
MemoryPlan plan_node_memory(const Options& options, const ModelConfig& config);

// Prints the plan of `nodes` equal nodes on stderr; throws SetupError with numbers and remedy when it exceeds what is
// free, or when the KV memory cannot hold one request of max_model_len.
void check_memory(const Options& options, const ModelConfig& config, uint32_t nodes);

std::string human_bytes(uint64_t bytes);  // "1.5 GiB"

// The length limit in force: --max-model-len or what the model was trained for. Throws SetupError when longer than
// trained.
uint32_t effective_model_len(const Options& options, const ModelConfig& config);

}  // namespace spillway
