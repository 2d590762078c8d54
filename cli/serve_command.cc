#include "cli/serve_command.h"

#include <fmt/format.h>
#include <malloc.h>

#include <utility>

#include "cli/api_key_file.h"
#include "cli/loading_watch.h"
#include "cli/node_placement.h"
#include "cli/packed_model.h"
#include "cli/public_prefix_file.h"
#include "cli/run_directory.h"
#include "cli/serve_check.h"
#include "cli/supervisor.h"
#include "cli/tls_files.h"
#include "common/cores.h"
#include "common/fault_points.h"
#include "common/log.h"

namespace spillway {
namespace {

constexpr Duration kDrainMargin = std::chrono::seconds(3);  // for a gateway to say its last words

Duration from_seconds(double seconds) {
  return std::chrono::duration_cast<Duration>(std::chrono::duration<double>(seconds));
}

std::vector<std::string> gateway_arguments(const Options& options, const RunDirectory& run) {
  std::vector<std::string> arguments{"gateway"};
  const auto add = [&](const char* flag, std::string value) {
    arguments.insert(arguments.end(), {flag, std::move(value)});
  };
  add("--model", options.model);
  add("--gateway", gateway_endpoint(options, run));
  add("--status-socket", run.status_socket());
  add("--name", "gateway");
  add("--host", options.host);
  add("--port", std::to_string(options.port));
  add("--queue-max", std::to_string(options.queue_max));
  add("--max-model-len", std::to_string(options.max_model_len));
  add("--drain-timeout", std::to_string(options.drain_timeout_s));
  add("--log-level", options.log_level);
  add("--log-format", options.log_format);
  for (const std::string& name : options.served_names) add("--served-model-name", name);
  if (!options.api_key_file.empty()) add("--api-key-file", options.api_key_file);
  if (!options.public_prefix_file.empty()) add("--public-prefix-file", options.public_prefix_file);
  if (!options.tls_cert.empty()) add("--tls-cert", options.tls_cert);
  if (!options.tls_key.empty()) add("--tls-key", options.tls_key);
  if (options.insecure) arguments.emplace_back("--insecure");
  if (!options.secret_file.empty()) add("--secret-file", options.secret_file);
  return arguments;
}

// A fault point belongs to the first node of its role: "prefill-step:3" arms prefill 0 only.
std::vector<std::string> fault_arguments(const Options& options, std::string_view role, uint32_t index) {
  std::vector<std::string> arguments;
  for (const std::string& fault : options.faults)
    if (index == 0 && fault.starts_with(role)) arguments.insert(arguments.end(), {"--fault", fault});
  return arguments;
}

void warn_of_threads(const Options& options) {
  if (options.decode_nice > 0 && options.prefill == 0)
    spdlog::warn(
        "--decode-nice {} lets prompts of prefill nodes go first, and none is started here: until one joins it "
        "lets only other programs go first",
        options.decode_nice);
  const uint32_t cores = available_cores();
  for (const auto& [role, count] : {std::pair(Role::kPrefill, options.prefill), {Role::kDecode, options.decode}})
    if (const uint32_t threads = threads_per_node(options, role); count > 0 && threads > cores)
      spdlog::warn("{} compute threads in each {} node and {} cores: threads wait for each other; at most {} is faster",
                   threads, role_name(role), cores, cores);
}

// All that may take time or find fault, before there is a run folder. Once it is over the signals are the supervisor's.
SharedWeights prepare(const Options& options) {
  const LoadingWatch loading;
  const FaultPoints checked(options.faults);                                // a typo ends here, not in a child
  if (!options.api_key_file.empty()) check_api_keys(options.api_key_file);  // as does a bad file
  (void)read_tls_identity(options);
  check_exposure(options);
  check_address(options);
  check_shared_memory();
  warn_of_threads(options);
  (void)served_places(options);
  check_served_model(options);
  (void)check_public_prefixes(options);
  SharedWeights weights = share_weights(options);
  Supervisor::block_signals();
  return weights;
}

}  // namespace

int serve_command(const Options& options) {
  const SharedWeights weights = prepare(options);
  ::malloc_trim(0);  // what reading the model took
  Options node = options;
  const RunDirectory run;
  std::vector<ChildSpec> specs;
  specs.push_back({.name = "gateway",
                   .arguments = gateway_arguments(options, run),
                   .first_arguments = fault_arguments(options, "gateway", 0),
                   .front = true});
  const std::vector<NodePlace> places = served_places(options);
  if (const std::string text = places_text(options, places); !text.empty()) spdlog::info("placed: {}", text);
  auto place = places.begin();
  const auto add_nodes = [&](Role role, uint32_t count) {
    node.threads = threads_fixed(options, role);
    for (uint32_t index = 0; index < count; ++index, ++place) {
      node.threads_max = place->threads_max;
      node.cpus = place->given ? cpu_list_text(place->cpus) : "";  // those of --cpus it inherits, and shares
      specs.push_back({.name = fmt::format("{} {}", role_name(role), index),
                       .arguments = node_arguments(node, role_name(role), index, run),
                       .first_arguments = fault_arguments(options, role_name(role), index),
                       .cpus = place->cpus,
                       .niceness = role == Role::kDecode ? static_cast<int>(options.decode_nice) : 0});
    }
  };
  add_nodes(Role::kPrefill, options.prefill);
  add_nodes(Role::kDecode, options.decode);
  Supervisor::Config config;
  config.restart.delay = from_seconds(options.restart_delay_s);
  config.restart.delay_max = from_seconds(options.restart_delay_max_s);
  config.drain_max = std::chrono::seconds(options.drain_timeout_s) + kDrainMargin;
  config.packed_fd = weights.packed.get();
  config.status_socket = run.status_socket();
  return Supervisor(config, std::move(specs)).run();
}

}  // namespace spillway
