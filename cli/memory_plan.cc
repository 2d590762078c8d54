#include "cli/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "cli/precision.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "common/log.h"
#include "common/memory.h"
#include "kernels/make_backend.h"
#include "model/decoder.h"
#include "model/weights.h"
#include "transfer/kv_sender.h"
#include "transfer/shm_transport.h"

namespace spillway {
namespace {

constexpr uint64_t kMiB = uint64_t{1} << 20;

// As flags take them: not less, not more than `bytes`.
std::string at_least(uint64_t bytes) { return fmt::format("{}MiB", (bytes + kMiB - 1) / kMiB); }
std::string at_most(uint64_t bytes) { return fmt::format("{}MiB", bytes / kMiB); }

}  // namespace

PlannedModel planned_model(const GgufFile& file, const ModelConfig& config) {
  const std::unique_ptr<Backend> backend = make_backend({.isa = "scalar", .threads = 1});  // all pack the same bytes
  PlannedModel model{.config = config};
  for (const PackJob& job : value_or_throw(pack_jobs(file, config, *backend)))
    model.weight_bytes += backend->packed_bytes(job.tensors, job.order);
  return model;
}

uint64_t needed_bytes(const Options& options, const PlannedModel& model) {
  const uint64_t shared = (options.prefill + options.decode - 1) * model.weight_bytes;
  return options.prefill * plan_node_memory(options, model, options.decode).total() +
         options.decode * plan_node_memory(options, model, options.prefill).total() - shared;
}

uint64_t MemoryPlan::total() const {
  uint64_t sum = 0;
  for (const Line& line : lines) sum += line.bytes;
  return sum;
}

std::string MemoryPlan::one_line() const {
  std::string text;
  for (const Line& line : lines) text += fmt::format("{} {}, ", line.what, human_bytes(line.bytes));
  return text + "together " + human_bytes(total());
}

MemoryPlan plan_memory(const PlannedModel& model, uint32_t rows, uint32_t sequences, uint32_t model_len,
                       uint64_t kv_bytes) {
  return {{{"packed weights", model.weight_bytes},
           {"KV blocks", kv_bytes},
           {"buffers of a step", Decoder::buffer_bytes(model.config, rows, sequences, model_len)},
           {"activation blocks", kActivationScratchBytes}}};
}

MemoryPlan plan_node_memory(const Options& options, const PlannedModel& model, uint32_t peers) {
  MemoryPlan plan = plan_memory(model, options.chunk_tokens + options.max_sequences, options.max_sequences,
                                effective_model_len(options, model.config), options.device_memory);
  if (peers > 0) {
    const uint64_t ring = ring_bytes_for(frame_bytes_max(model.config.kv_layout(precision_of(options).kv)));
    plan.lines.push_back({fmt::format("rings to {} peer{}", peers, peers == 1 ? "" : "s"), ring * peers});
  }
  return plan;
}

std::string human_bytes(uint64_t bytes) {
  if (bytes >= uint64_t{1} << 30) return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / (1 << 30));
  return fmt::format("{:.0f} MiB", static_cast<double>(bytes) / (1 << 20));
}

uint32_t effective_model_len(const Options& options, const ModelConfig& config) {
  if (options.max_model_len == 0) return config.context_max;
  if (options.max_model_len > config.context_max)
    throw SetupError(fmt::format("--max-model-len {} is longer than the {} tokens {}: lower it to {}, or leave it out",
                                 options.max_model_len, config.context_max,
                                 config.sliding_window == 0
                                     ? "this model was trained for"
                                     : "of this model's attention window, which is as far as it is served",
                                 config.context_max));
  return options.max_model_len;
}

std::optional<std::string> memory_shortage(const Options& options, const PlannedModel& model, uint64_t available) {
  const KvLayout layout = model.config.kv_layout(precision_of(options).kv);
  const uint32_t length = effective_model_len(options, model.config);
  const uint64_t request = uint64_t{layout.blocks_for(length)} * layout.block_bytes();
  const uint64_t blocks = options.device_memory / layout.block_bytes();
  if (options.device_memory < request) {
    const std::string shorter =
        blocks == 0 ? "" : fmt::format("lower --max-model-len to {} or ", blocks * layout.block_tokens);
    return fmt::format("one request of {} tokens needs {} of KV, --device-memory is {}: {}raise --device-memory to {}",
                       length, human_bytes(request), human_bytes(options.device_memory), shorter, at_least(request));
  }
  const uint64_t nodes = uint64_t{options.prefill} + options.decode;
  const uint64_t needed = needed_bytes(options, model);
  if (needed <= available) return std::nullopt;
  const uint64_t excess = (needed - available + nodes - 1) / nodes;  // of each node
  const uint64_t lower = excess < options.device_memory ? (options.device_memory - excess) / kMiB * kMiB : 0;
  const uint64_t tokens = lower / layout.block_bytes() * layout.block_tokens;
  const std::string lacking = at_least(needed - available);
  const std::string remedy = lower >= request ? fmt::format("lower --device-memory to {}", at_most(lower))
                             : tokens > 0
                                 ? fmt::format("lower --max-model-len to {} and --device-memory to {}, or free {}",
                                               tokens, at_most(lower), lacking)
                                 : fmt::format("weights and buffers alone take {}: start fewer nodes, or free {}",
                                               human_bytes(needed - nodes * options.device_memory), lacking);
  return fmt::format("{} need{} {}, {} is available: {}", nodes == 1 ? "the node" : fmt::format("{} nodes", nodes),
                     nodes == 1 ? "s" : "", human_bytes(needed), human_bytes(available), remedy);
}

void check_memory(const Options& options, const PlannedModel& model) {
  const uint32_t nodes = options.prefill + options.decode;
  const uint32_t peers = options.prefill == 0 ? 0 : std::max(options.prefill, options.decode);
  const MemoryPlan plan = plan_node_memory(options, model, peers);
  say(nodes == 1 ? "memory of the node, at most:" : fmt::format("memory of {} nodes, each at most:", nodes));
  for (const MemoryPlan::Line& line : plan.lines)
    say(fmt::format("  {:<28} {:>9}", line.what, human_bytes(line.bytes)));
  const uint64_t available = available_memory_bytes();
  say(fmt::format("  {:<28} {:>9}   ({} in all, {} available)", "together", human_bytes(plan.total()),
                  human_bytes(needed_bytes(options, model)), human_bytes(available)));
  const KvLayout layout = model.config.kv_layout(precision_of(options).kv);
  const uint64_t blocks = options.device_memory / layout.block_bytes();
  say(fmt::format("KV: {} blocks of {} tokens = {} tokens a node", blocks, layout.block_tokens,
                  blocks * layout.block_tokens));
  if (const auto shortage = memory_shortage(options, model, available)) throw SetupError(*shortage);
}

}  // namespace spillway
