#include "cli/process_routes.h"

#include "cli/process_cluster.h"

namespace spillway {
namespace {

Result<RouteResult> served(ProcessCluster& cluster, const VerifyRequest& request) {
  return cluster.generate(request.prompt, request.tokens_max).map([](const ProcessCluster::Generated& generated) {
    return route_result(generated.tokens, generated.logits_digests);
  });
}

// Runs `routes` against `expected`, whose own row is not among the outcomes.
void run_against(const RouteResult& expected, std::vector<VerifyRoute> routes, std::vector<RouteOutcome>& outcomes) {
  routes.insert(routes.begin(), {"one process", [&]() -> Result<RouteResult> { return expected; }});
  std::vector<RouteOutcome> all = run_routes(routes);
  for (size_t index = 1; index < all.size(); ++index) outcomes.push_back(std::move(all[index]));
}

Options node_options(const Options& options, const VerifyRequest& request, uint32_t nodes_per_role) {
  Options node = options;
  node.prefill = node.decode = nodes_per_role;
  node.log_level = "warning";
  node.max_sequences = 4;
  node.chunk_tokens = 128;  // several chunks a prompt, so that parts leave while others are computed
  node.max_model_len = static_cast<uint32_t>(request.prompt.size()) + request.tokens_max;
  node.device_memory = uint64_t{128} << 20;
  return node;
}

}  // namespace

std::vector<RouteOutcome> verify_processes(const Options& options, const std::string& executable,
                                           const VerifyRequest& request, const RouteResult& expected) {
  std::vector<RouteOutcome> outcomes;
  {
    ProcessCluster cluster(node_options(options, request, 1), executable);
    run_against(expected,
                {{"1P1D", [&] { return served(cluster, request); }},
                 {"1P1D prefix hit", [&] { return served(cluster, request); }},
                 {"1P1D D restarted",
                  [&] {
                    cluster.kill_and_restart_decode(0);
                    return served(cluster, request);
                  }}},
                outcomes);
  }
  ProcessCluster cluster(node_options(options, request, 2), executable);
  run_against(
      expected,
      {{"2P2D", [&] { return served(cluster, request); }}, {"2P2D again", [&] { return served(cluster, request); }}},
      outcomes);
  return outcomes;
}

}  // namespace spillway
