#include "cli/process_routes.h"

#include <fmt/format.h>

#include <optional>
#include <set>

#include "cli/precision.h"
#include "cli/process_cluster.h"

namespace spillway {
namespace {

// The answers of `copies` equal requests at the same moment, which so many nodes must have served.
Result<RouteResult> served(ProcessCluster& cluster, const VerifyRequest& request, uint32_t copies, uint32_t by_nodes) {
  std::optional<RouteResult> first;
  std::set<PeerId> nodes;
  for (const auto& answer : cluster.generate(request.prompt, request.tokens_max, copies)) {
    if (!answer) return tl::unexpected<Error>(answer.error());
    const RouteResult result = route_result(answer->tokens, answer->logits_digests);
    if (first && result != *first) return fail(ErrorCode::kInternal, "requests at the same moment differ");
    first = result;
    nodes.insert(answer->nodes.begin(), answer->nodes.end());
  }
  if (nodes.size() != by_nodes)
    return fail(ErrorCode::kInternal, fmt::format("{} nodes served, not {}", nodes.size(), by_nodes));
  return *first;
}

constexpr uint32_t kOutgrowing = 2;  // requests at once

Result<RouteResult> served_under_pressure(ProcessCluster& cluster, const VerifyRequest& request) {
  Result<RouteResult> result = served(cluster, request, kOutgrowing, 2);
  if (!result) return result;
  // Both have one prompt: who is preempted at the end of a block finds all of it in the cache, and computes none again.
  if (cluster.preemption_counts().preemptions == 0) return fail(ErrorCode::kInternal, "nobody was preempted");
  return result;
}

Result<RouteResult> served_from_cache(ProcessCluster& cluster, const VerifyRequest& request) {
  const auto answer = std::move(cluster.generate(request.prompt, request.tokens_max, 1).front());
  if (!answer) return tl::unexpected<Error>(answer.error());
  return check_prefix_hit(answer->waterfall).map([&] { return route_result(answer->tokens, answer->logits_digests); });
}

// Runs `routes` against `expected`, whose own row is not among the outcomes.
void run_against(const RouteResult& expected, std::vector<VerifyRoute> routes, std::vector<RouteOutcome>& outcomes) {
  routes.insert(routes.begin(), {"one process", [&]() -> Result<RouteResult> { return expected; }});
  std::vector<RouteOutcome> all = run_routes(routes);
  for (size_t index = 1; index < all.size(); ++index) outcomes.push_back(std::move(all[index]));
}

Options node_options(const Options& options, const VerifyRequest& request, uint32_t prefill, uint32_t decode) {
  Options node = options;
  node.prefill = prefill;
  node.decode = decode;
  node.log_level = "warning";
  node.max_sequences = 4;
  node.chunk_tokens = 128;  // several chunks a prompt, so that parts leave while others are computed
  node.max_model_len = static_cast<uint32_t>(request.prompt.size()) + request.tokens_max;
  return node;
}

// The prompts of kOutgrowing requests fill all KV memory, and each answer needs a block more. Nothing where the answer
// ends in the prompt's last block.
void verify_under_pressure(const Options& options, const std::string& executable, const VerifyRequest& request,
                           const RouteResult& expected, std::vector<RouteOutcome>& outcomes) {
  const ModelFile file(options.model);
  const KvLayout layout = file.config().kv_layout(precision_of(options).kv);
  const auto prompt_tokens = static_cast<uint32_t>(request.prompt.size());
  const uint32_t blocks = layout.blocks_for(prompt_tokens);
  if (layout.blocks_for(prompt_tokens + request.tokens_max - 1) == blocks) return;
  Options node = node_options(options, request, 1, 1);
  node.device_memory = uint64_t{kOutgrowing} * blocks * layout.block_bytes();
  node.growth_margin = 0;
  ProcessCluster cluster(node, executable);
  run_against(expected, {{"1P1D, preempted", [&] { return served_under_pressure(cluster, request); }}}, outcomes);
}

}  // namespace

Result<void> check_prefix_hit(const Waterfall& waterfall) {
  if (waterfall.prefill_cached_tokens > 0 && waterfall.decode_cached_tokens > 0) return {};
  return fail(ErrorCode::kInternal,
              fmt::format("prompt tokens found in caches: {} by prefill, {} by decode; both should have some",
                          waterfall.prefill_cached_tokens, waterfall.decode_cached_tokens));
}

std::vector<RouteOutcome> verify_processes(const Options& options, const std::string& executable,
                                           const VerifyRequest& request, const RouteResult& expected) {
  std::vector<RouteOutcome> outcomes;
  {
    ProcessCluster cluster(node_options(options, request, 1, 1), executable);
    std::vector<VerifyRoute> routes{{"1P1D", [&] { return served(cluster, request, 1, 2); }}};
    if (request.prompt.size() > cluster.block_tokens())
      routes.push_back({"1P1D prefix hit", [&] { return served_from_cache(cluster, request); }});
    routes.push_back({"1P1D D restarted", [&] {
                        cluster.kill_and_restart_decode(0);
                        return served(cluster, request, 1, 2);
                      }});
    run_against(expected, std::move(routes), outcomes);
  }
  verify_under_pressure(options, executable, request, expected, outcomes);
  {
    ProcessCluster cluster(node_options(options, request, 0, 1), executable);
    run_against(expected, {{"colocated", [&] { return served(cluster, request, 1, 1); }}}, outcomes);
  }
  ProcessCluster cluster(node_options(options, request, 2, 2), executable);
  run_against(expected,
              {{"2P2D, both pairs", [&] { return served(cluster, request, 2, 4); }},
               {"2P2D again", [&] { return served(cluster, request, 2, 4); }}},
              outcomes);
  return outcomes;
}

}  // namespace spillway
