#include "cli/serve_command.h"

#include <fmt/format.h>

#include "cli/api_key_file.h"
#include "cli/run_directory.h"
#include "cli/serve_check.h"
#include "cli/supervisor.h"
#include "cli/tls_files.h"
#include "cli/value_or_throw.h"
#include "common/fault_points.h"
#include "formats/gguf.h"
#include "model/model_config.h"
#include "model/packed_weights.h"

namespace spillway {
namespace {

std::vector<std::string> gateway_arguments(const Options& options, const RunDirectory& run) {
  std::vector<std::string> arguments{"gateway"};
  const auto add = [&](const char* flag, std::string value) {
    arguments.insert(arguments.end(), {flag, std::move(value)});
  };
  add("--model", options.model);
  add("--gateway", run.gateway_endpoint());
  add("--name", "gateway");
  add("--host", options.host);
  add("--port", std::to_string(options.port));
  add("--queue-max", std::to_string(options.queue_max));
  add("--max-model-len", std::to_string(options.max_model_len));
  add("--log-level", options.log_level);
  for (const std::string& name : options.served_names) add("--served-model-name", name);
  if (!options.api_key_file.empty()) add("--api-key-file", options.api_key_file);
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

// Before the nodes start, so that each finds them packed.
void pack_weights_once(const Options& options) {
  if (options.cache_dir.empty()) return;
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  const ModelConfig config = value_or_throw(read_model_config(file));
  const ModelId model = compute_model_id(file, config, config.kv_layout().block_tokens);
  (void)PackedWeights::find_or_make(options.cache_dir, file, config, model, {options.isa, options.threads});
}

}  // namespace

int serve_command(const Options& options) {
  const FaultPoints checked(options.faults);                                     // a typo ends here, not in a child
  if (!options.api_key_file.empty()) (void)read_api_keys(options.api_key_file);  // as does a bad file
  (void)read_tls_identity(options);
  check_exposure(options);
  check_shared_memory();
  check_served_model(options);
  pack_weights_once(options);
  Options node = options;
  node.threads = threads_per_node(options);
  const RunDirectory run;
  std::vector<ChildSpec> specs;
  specs.push_back({"gateway", gateway_arguments(options, run), fault_arguments(options, "gateway", 0)});
  const auto add_nodes = [&](const char* role, uint32_t count) {
    for (uint32_t index = 0; index < count; ++index)
      specs.push_back({fmt::format("{} {}", role, index), node_arguments(node, role, index, run),
                       fault_arguments(options, role, index)});
  };
  add_nodes("prefill", options.prefill);
  add_nodes("decode", options.decode);
  return Supervisor(Supervisor::Config{}, std::move(specs)).run();
}

}  // namespace spillway
