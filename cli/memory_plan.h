#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "formats/gguf.h"
#include "model/model_config.h"

namespace spillway {

// What a plan must know of a model.
struct PlannedModel {
  ModelConfig config;
  uint64_t weight_bytes = 0;  // of all matrices, packed
};
// Of a file whose weights nobody has packed yet. Throws SetupError where load_weights() would fail or throw.
PlannedModel planned_model(const GgufFile& file, const ModelConfig& config);

// What one process will hold, in bytes, from the settings alone.
struct MemoryPlan {
  struct Line {
    std::string what;
    uint64_t bytes = 0;
  };
  std::vector<Line> lines;
  uint64_t total() const;
  std::string one_line() const;  // for the log
};
// A process that computes: weights, KV memory, and activations for `rows` tokens of at most `sequences` a step.
MemoryPlan plan_memory(const PlannedModel& model, uint32_t rows, uint32_t sequences, uint32_t model_len,
                       uint64_t kv_bytes);
// A node with rings towards `peers` nodes of the other role.
MemoryPlan plan_node_memory(const Options& options, const PlannedModel& model, uint32_t peers);

// Of all prefill and decode nodes of `options`: each has the rings towards its own peers; the packed weights are one
// copy that all of them map.
uint64_t needed_bytes(const Options& options, const PlannedModel& model);

// Why the nodes of `options` (prefill and decode) cannot run in `available` bytes or their KV memory cannot hold one
// request of max_model_len, with a remedy that works; nothing when they can.
std::optional<std::string> memory_shortage(const Options& options, const PlannedModel& model, uint64_t available);

// Prints the plan of these nodes on stderr; throws SetupError with the shortage, if there is one.
void check_memory(const Options& options, const PlannedModel& model);

std::string human_bytes(uint64_t bytes);  // "1.5 GiB"

// The length limit in force: --max-model-len or what the model was trained for. Throws SetupError when longer than
// trained.
uint32_t effective_model_len(const Options& options, const ModelConfig& config);

}  // namespace spillway
