#include "cli/flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "cli/configuration.h"
#include "common/check.h"

namespace spillway {
namespace {

constexpr size_t kServedNameBytesMax = 128;
constexpr int kServedNamesMax = 64;
constexpr int kFaultsMax = 64;

void add_optional_model(CLI::App& command, Options& options) {
  command.add_option("-m,--model", options.model, "Model file (GGUF)")->check(CLI::ExistingFile)->type_name("FILE");
}

void add_model(CLI::App& command, Options& options) {
  add_optional_model(command, options);
  command.get_option("--model")->required();
}

void add_engine(CLI::App& command, Options& options) {
  command.add_option("--threads", options.threads, "Compute threads of each node; 0: share the cores")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  command.add_option("--isa", options.isa, "Instruction set of the kernels: auto, scalar, avx512bf16")
      ->check(CLI::IsMember({"auto", "scalar", "avx512bf16"}))
      ->capture_default_str();
  command
      .add_option("--cache-dir", options.cache_dir,
                  "Folder for the packed weights: written once, then mapped by every process. Default: none, each "
                  "process packs its own")
      ->type_name("DIR");
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
      ->default_str(fmt::format("{}MiB", options.device_memory >> 20));
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
      ->expected(1, kServedNamesMax)
      ->allow_extra_args(false)
      ->check(CLI::Validator(check_served_name, "NAME"));
  command
      .add_option("--api-key-file", options.api_key_file,
                  "Keys of the API, one a line, mode 0600: clients must show one (Authorization: Bearer KEY), and each "
                  "has a prefix cache of its own. Default: nobody is asked")
      ->type_name("FILE");
  command
      .add_option("--tls-cert", options.tls_cert,
                  "Certificate (PEM, the server's own first) to serve https with. Default: plain HTTP")
      ->type_name("FILE");
  command.add_option("--tls-key", options.tls_key, "Its private key (PEM, mode 0600, no passphrase)")
      ->type_name("FILE");
  command.add_flag("--insecure", options.insecure,
                   "Let a --host that other machines reach go without --api-key-file or TLS");
  command.add_option("--queue-max", options.queue_max, "Requests that may wait; more are answered 429")
      ->check(CLI::Range(1u, 65536u))
      ->capture_default_str();
}

void add_join(CLI::App& command, Options& options) {
  command.add_option("--gateway", options.gateway_endpoint, "Control endpoint of the gateway: ipc://PATH")->required();
  command.add_option("--name", options.name, "Name in logs and errors, e.g. \"prefill 0\"");
  command.add_option("--ready-fd", options.ready_fd, "Open descriptor to be told when this process is at work")
      ->configurable(false);
}

void add_run_dir(CLI::App& command, Options& options) {
  command.add_option("--run-dir", options.run_dir, "Folder for this run's sockets")
      ->required()
      ->check(CLI::ExistingDirectory)
      ->type_name("DIR");
}

void add_serve(CLI::App& command, Options& options) {
  command.add_option("--prefill", options.prefill, "Prefill nodes to start")
      ->check(CLI::Range(1u, 16u))
      ->capture_default_str();
  command.add_option("--decode", options.decode, "Decode nodes to start")
      ->check(CLI::Range(1u, 16u))
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
  command
      .add_option("--fault", options.faults,
                  "Tests only: NAME[:N] kills the process at the Nth pass of a fault point, NAME[:N]:stop halts it")
      ->expected(1, kFaultsMax)
      ->allow_extra_args(false);
}

void add_secret(CLI::App& command, Options& options) {
  command
      .add_option("--secret-file", options.secret_file,
                  "Secret that keys the prefix cache; made (mode 0600) when absent. Default: the user's state folder")
      ->type_name("FILE");
}

// A flag is added in one place: in the function of its group. Its variable, its line of --print-config, its place in
// the help and in the shell completion follow; a path says so by type_name("FILE") or ("DIR").
struct GroupEntry {
  FlagGroup group;
  const char* title;
  void (*add)(CLI::App&, Options&);
};
constexpr GroupEntry kGroups[] = {
    {FlagGroup::kModel, "Model", add_model},
    {FlagGroup::kOptionalModel, "Model", add_optional_model},
    {FlagGroup::kModelLen, "Model", add_model_len},
    {FlagGroup::kEngine, "Compute", add_engine},
    {FlagGroup::kKv, "Memory and batches", add_kv},
    {FlagGroup::kBatch, "Memory and batches", add_batch},
    {FlagGroup::kHttp, "HTTP API", add_http},
    {FlagGroup::kServe, "Nodes", add_serve},
    {FlagGroup::kJoin, "Nodes", add_join},
    {FlagGroup::kRunDir, "Nodes", add_run_dir},
    {FlagGroup::kSecret, "Secrets", add_secret},
    {FlagGroup::kPrompt, "Prompt", add_prompt},
    {FlagGroup::kSampling, "Sampling", add_sampling},
    {FlagGroup::kBench, "Measuring", add_bench},
    {FlagGroup::kReport, "Measuring", add_report},
    {FlagGroup::kVerify, "Proof", add_verify},
    {FlagGroup::kFault, "Tests", add_fault},
};

}  // namespace

void add_flags(CLI::App& command, Options& options, const std::vector<FlagGroup>& groups) {
  for (const FlagGroup group : groups) {
    const auto* const entry = std::ranges::find(kGroups, group, &GroupEntry::group);
    CHECK(entry != std::end(kGroups));
    command.option_defaults()->group(entry->title);
    entry->add(command, options);
  }
  command.option_defaults()->group("Log");
  command.add_option("--log-level", options.log_level, "trace, debug, info, warning, error")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}))
      ->capture_default_str();
  for (CLI::Option* const option : settings_of(command))  // for --print-config
    if (option->get_items_expected_max() == 1 && option->get_default_str().empty()) option->capture_default_str();
}

}  // namespace spillway
