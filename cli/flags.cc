#include "cli/flags.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <sstream>

namespace spillway {
namespace {

constexpr size_t kServedNameBytesMax = 128;

void add_model(CLI::App& command, Options& options) {
  command.add_option("-m,--model", options.model, "Model file (GGUF)")->required()->check(CLI::ExistingFile);
}

void add_engine(CLI::App& command, Options& options) {
  command.add_option("--threads", options.threads, "Compute threads of each node; 0: share the cores")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  command.add_option("--isa", options.isa, "Instruction set of the kernels: auto, scalar, avx512bf16")
      ->check(CLI::IsMember({"auto", "scalar", "avx512bf16"}))
      ->capture_default_str();
  command.add_option("--cache-dir", options.cache_dir,
                     "Folder for the packed weights: written once, then mapped by every process. Default: none, each "
                     "process packs its own");
}

void add_model_len(CLI::App& command, Options& options) {
  command
      .add_option("--max-model-len", options.max_model_len, "Prompt and output tokens of one request; 0: as trained")
      ->check(CLI::Range(0u, 1u << 20))
      ->capture_default_str();
}

void add_kv(CLI::App& command, Options& options) {
  command.add_option("--device-memory", options.device_memory, "KV memory of each node, e.g. 512MiB, 2GiB")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 50))
      ->capture_default_str();
  command.add_option("--chunk-tokens", options.chunk_tokens, "Prompt tokens of one request computed per step")
      ->check(CLI::Range(1u, 16384u))
      ->capture_default_str();
}

void add_batch(CLI::App& command, Options& options) {
  command.add_option("--max-sequences", options.max_sequences, "Requests in one node at once")
      ->check(CLI::Range(1u, 1024u))
      ->capture_default_str();
}

// Names go into JSON, log lines and metric labels.
std::string check_served_name(const std::string& name) {
  const bool good = !name.empty() && name.front() != '-' && name.size() <= kServedNameBytesMax &&
                    std::ranges::all_of(name, [](char c) { return c >= 0x21 && c <= 0x7e && c != '"' && c != '\\'; });
  return good ? ""
              : fmt::format("a name has 1 to {} printable ASCII characters, none of them a quote, and no dash in front",
                            kServedNameBytesMax);
}

void add_http(CLI::App& command, Options& options) {
  command.add_option("--host", options.host, "Address to listen on")->capture_default_str();
  command.add_option("--port", options.port, "HTTP port; 0: any free one")->capture_default_str();
  command
      .add_option("--served-model-name", options.served_names,
                  "Name of the model in the API, repeatable; *: requests may name any. Default: the file's stem")
      ->check(CLI::Validator(check_served_name, "NAME"));
  command.add_option(
      "--api-key-file", options.api_key_file,
      "Keys of the API, one a line, mode 0600: clients must show one (Authorization: Bearer KEY), and each "
      "has a prefix cache of its own. Default: nobody is asked");
  command.add_option("--queue-max", options.queue_max, "Requests that may wait; more are answered 429")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
}

void add_join(CLI::App& command, Options& options) {
  command.add_option("--gateway", options.gateway_endpoint, "Control endpoint of the gateway: ipc://PATH")->required();
  command.add_option("--name", options.name, "Name in logs and errors, e.g. \"prefill 0\"");
  command.add_option("--ready-fd", options.ready_fd, "Open descriptor to be told when this process is at work");
}

void add_run_dir(CLI::App& command, Options& options) {
  command.add_option("--run-dir", options.run_dir, "Folder for this run's sockets")
      ->required()
      ->check(CLI::ExistingDirectory);
}

void add_serve(CLI::App& command, Options& options) {
  command.add_option("--prefill", options.prefill, "Prefill nodes to start")
      ->check(CLI::Range(1u, 16u))
      ->capture_default_str();
  command.add_option("--decode", options.decode, "Decode nodes to start")
      ->check(CLI::Range(1u, 16u))
      ->capture_default_str();
  command
      .add_option("--restart-delay", options.restart_delay_s,
                  "Seconds before a process that ended is started again; doubled each time, until it stays up")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command.add_option("--restart-delay-max", options.restart_delay_max_s, "Most seconds between two such starts")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
}

void add_drain(CLI::App& command, Options& options) {
  command
      .add_option("--drain-timeout", options.drain_timeout_s,
                  "Seconds that requests have to finish after SIGTERM or SIGINT; a second signal ends them at once")
      ->check(CLI::Range(0u, 86400u))
      ->capture_default_str();
}

void add_prompt(CLI::App& command, Options& options) {
  command.add_option("-p,--prompt", options.prompt, "Prompt text")->required();
  command.add_option("--max-tokens", options.max_tokens, "Tokens to generate at most")
      ->check(CLI::Range(1u, 1u << 20))
      ->capture_default_str();
  command.add_flag("--chat", options.chat, "Wrap the prompt in the model's chat template");
}

void add_sampling(CLI::App& command, Options& options) {
  command.add_option("--temperature", options.temperature, "0: greedy")
      ->check(CLI::Range(0.0f, 2.0f))
      ->capture_default_str();
  command.add_option("--seed", options.seed, "Seed for temperature > 0")->capture_default_str();
}

void add_bench(CLI::App& command, Options& options) {
  command.add_option("what", options.bench, "What to measure: engine, the whole of one process")
      ->check(CLI::IsMember({"engine"}))
      ->capture_default_str();
}

void add_report(CLI::App& command, Options& options) {
  command.add_option("--format", options.format, "table or json")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  command.add_option("--repetitions", options.repetitions, "Measured runs of each line")
      ->check(CLI::Range(1u, 100u))
      ->capture_default_str();
}

void add_verify(CLI::App& command, Options& options) {
  command
      .add_option("--max-tokens", options.verify_tokens,
                  "Tokens to generate on each route; scalar kernels with a large model: 2")
      ->check(CLI::Range(2u, 4096u))
      ->capture_default_str();
  command.add_flag("--flip-bit", options.flip_bit, "Flip one KV bit on the KV-cache route, which must then fail");
}

void add_fault(CLI::App& command, Options& options) {
  command.add_option("--fault", options.faults,
                     "Tests only: NAME[:N] kills the process at the Nth pass of a fault point, NAME[:N]:stop halts it, "
                     "NAME[:N]:wedge holds the passing thread until SIGCONT");
}

void add_secret(CLI::App& command, Options& options) {
  command.add_option(
      "--secret-file", options.secret_file,
      "Secret that keys the prefix cache; made (mode 0600) when absent. Default: the user's state folder");
}

}  // namespace

void add_flags(CLI::App& command, Options& options, const std::vector<FlagGroup>& groups) {
  for (const FlagGroup group : groups) {
    switch (group) {
      case FlagGroup::kModel: add_model(command, options); break;
      case FlagGroup::kOptionalModel:
        command.add_option("-m,--model", options.model, "Model file (GGUF)")->check(CLI::ExistingFile);
        break;
      case FlagGroup::kVerify: add_verify(command, options); break;
      case FlagGroup::kEngine: add_engine(command, options); break;
      case FlagGroup::kModelLen: add_model_len(command, options); break;
      case FlagGroup::kKv: add_kv(command, options); break;
      case FlagGroup::kBatch: add_batch(command, options); break;
      case FlagGroup::kHttp: add_http(command, options); break;
      case FlagGroup::kJoin: add_join(command, options); break;
      case FlagGroup::kRunDir: add_run_dir(command, options); break;
      case FlagGroup::kServe: add_serve(command, options); break;
      case FlagGroup::kBench: add_bench(command, options); break;
      case FlagGroup::kPrompt: add_prompt(command, options); break;
      case FlagGroup::kSampling: add_sampling(command, options); break;
      case FlagGroup::kReport: add_report(command, options); break;
      case FlagGroup::kStatus:
        command.add_option("--status-socket", options.status_socket, "Socket on which serve says which nodes crash");
        break;
      case FlagGroup::kDrain: add_drain(command, options); break;
      case FlagGroup::kFault: add_fault(command, options); break;
      case FlagGroup::kSecret: add_secret(command, options); break;
    }
  }
  command.add_option("--log-level", options.log_level, "trace, debug, info, warning, error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}))
      ->capture_default_str();
}

std::string YamlConfig::to_config(const CLI::App* app, bool default_also, bool /*write_description*/,
                                  std::string /*prefix*/) const {
  std::ostringstream out;
  for (const CLI::Option* option : app->get_options()) {
    if (option->get_lnames().empty() || !option->get_configurable()) continue;
    if (option->count() == 0 && !(default_also && !option->get_default_str().empty())) continue;
    out << option->get_lnames().front() << ": ";
    out << (option->count() > 0 ? CLI::detail::join(option->results(), ", ") : option->get_default_str()) << '\n';
  }
  return out.str();
}

std::vector<CLI::ConfigItem> YamlConfig::from_config(std::istream& input) const try {
  const YAML::Node root = YAML::Load(input);
  if (!root.IsMap() && !root.IsNull()) throw CLI::ConversionError("--config: expected a map of long flags to values");
  std::vector<CLI::ConfigItem> found;
  for (const auto& entry : root) {
    CLI::ConfigItem item;
    for (const CLI::App* command : app_.get_subcommands()) item.parents = {command->get_name()};
    item.name = entry.first.as<std::string>();
    if (std::ranges::find(found, item.name, &CLI::ConfigItem::name) != found.end())
      throw CLI::ConversionError("--config: " + item.name + " twice");
    if (!entry.second.IsScalar() && !entry.second.IsSequence())
      throw CLI::ConversionError("--config: " + item.name + " must be a value or a list of values");
    item.inputs = entry.second.IsScalar() ? std::vector{entry.second.as<std::string>()}
                                          : entry.second.as<std::vector<std::string>>();
    found.push_back(std::move(item));
  }
  return found;
} catch (const YAML::Exception& error) {
  throw CLI::ConversionError(std::string("--config: ") + error.what());
}

}  // namespace spillway
