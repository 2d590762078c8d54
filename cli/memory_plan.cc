#include "cli/memory_plan.h"

#include <fmt/format.h>

#include <cstdio>

#include "common/check.h"
#include "common/memory.h"
#include "model/decoder.h"

namespace spillway {
namespace {

constexpr uint64_t kRingBytesPerNode = uint64_t{64} << 20;  // shared-memory rings towards its peers, at most

uint64_t weight_values(const ModelConfig& config) {
  const uint64_t head_rows = uint64_t{config.heads} + 2u * config.kv_heads;
  const uint64_t layer = head_rows * config.head_dim * config.hidden +
                         uint64_t{config.heads} * config.head_dim * config.hidden +
                         3ull * config.feed_forward * config.hidden;
  return layer * config.layer_count + uint64_t{config.vocab} * config.hidden;
}

}  // namespace

uint64_t MemoryPlan::total() const {
  uint64_t sum = 0;
  for (const Line& line : lines) sum += line.bytes;
  return sum;
}

MemoryPlan plan_node_memory(const Options& options, const ModelConfig& config) {
  const uint32_t rows = options.chunk_tokens + options.max_sequences;
  return {{{"weights packed as bf16", weight_values(config) * 2},
           {"KV blocks (--device-memory)", options.device_memory},
           {"activations",
            Decoder::activation_bytes(config, rows, options.max_sequences, effective_model_len(options, config))},
           {"transfer rings", kRingBytesPerNode}}};
}

std::string human_bytes(uint64_t bytes) {
  if (bytes >= uint64_t{1} << 30) return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30));
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20));
}

uint32_t effective_model_len(const Options& options, const ModelConfig& config) {
  if (options.max_model_len == 0) return config.context_max;
  if (options.max_model_len > config.context_max)
    throw SetupError(fmt::format("--max-model-len {} is longer than the {} tokens this model was trained for",
                                 options.max_model_len, config.context_max));
  return options.max_model_len;
}

void check_memory(const Options& options, const ModelConfig& config, uint32_t nodes) {
  const MemoryPlan plan = plan_node_memory(options, config);
  const KvLayout layout = config.kv_layout();
  const uint32_t length = effective_model_len(options, config);
  const uint64_t blocks = options.device_memory / layout.block_bytes();
  fmt::print(stderr, "memory of {} node{}, each:\n", nodes, nodes == 1 ? "" : "s");
  for (const MemoryPlan::Line& line : plan.lines)
    fmt::print(stderr, "  {:<28} {:>9}\n", line.what, human_bytes(line.bytes));
  const uint64_t needed = plan.total() * nodes;
  const uint64_t available = available_memory_bytes();
  fmt::print(stderr, "  {:<28} {:>9}   ({} in all, {} available)\n", "together", human_bytes(plan.total()),
             human_bytes(needed), human_bytes(available));
  fmt::print(stderr, "KV: {} blocks of {} tokens = {} tokens a node\n", blocks, layout.block_tokens,
             blocks * layout.block_tokens);
  if (blocks < layout.blocks_for(length))
    throw SetupError(
        fmt::format("one request of {} tokens needs {} of KV, --device-memory is {}: lower --max-model-len to {} or "
                    "raise --device-memory",
                    length, human_bytes(uint64_t{layout.blocks_for(length)} * layout.block_bytes()),
                    human_bytes(options.device_memory), blocks * layout.block_tokens));
  if (needed > available)
    throw SetupError(fmt::format("{} nodes need {}, {} is available: lower --device-memory to {} or start fewer nodes",
                                 nodes, human_bytes(needed), human_bytes(available),
                                 human_bytes(options.device_memory > (needed - available) / nodes
                                                 ? options.device_memory - (needed - available) / nodes
                                                 : 0)));
}

}  // namespace spillway
