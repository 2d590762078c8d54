#include "cli/flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <iterator>

#include "cli/bench_report.h"
#include "cli/configuration.h"
#include "common/check.h"
#include "common/cpu_list.h"
#include "kernels/make_backend.h"
#include "transfer/control_endpoint.h"

namespace spillway {
namespace {

constexpr size_t kServedNameBytesMax = 128;
constexpr int kServedNamesMax = 64;
constexpr int kFaultsMax = 64;
constexpr int kGatewaysMax = 8;  // that one node joins

std::string check_model(const std::string& path) {
  std::error_code error;
  return std::filesystem::is_regular_file(path, error) ? "" : "no file " + path + ": name a GGUF file that is there";
}

void add_optional_model(CLI::App& command, Options& options) {
  command.add_option("-m,--model", options.model, "Model file (GGUF)")
      ->check(CLI::Validator(check_model, ""))
      ->type_name("FILE");
}

void add_model(CLI::App& command, Options& options) {
  add_optional_model(command, options);
  command.get_option("--model")->required();
}

const CLI::Validator kCpuList(
    [](const std::string& text) {
      const Result<CpuList> cpus = parse_cpu_list(text);
      return cpus ? std::string() : cpus.error().detail;
    },
    "LIST");

void add_engine(CLI::App& command, Options& options) {
  command
      .add_option(
          "--threads", options.threads,
          "Compute threads of each node; 0: as many as each kind of step is fastest with, measured at the start")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  command
      .add_option("--threads-max", options.threads_max,
                  "Most compute threads of each node where --threads is 0; 0: its share of the cores")
      ->check(CLI::Range(0u, kBackendThreadsMax))
      ->capture_default_str();
  command
      .add_option("--cpus", options.cpus,
                  "CPUs to run on, e.g. 0-3,8; where a process has as many compute threads, each gets its own. "
                  "Default: any")
      ->check(kCpuList);
  command.add_option("--isa", options.isa, "Instruction set of the kernels: auto, scalar, avx2, avx512bf16")
      ->check(CLI::IsMember({"auto", "scalar", "avx2", "avx512bf16"}))
      ->capture_default_str();
  command
      .add_option("--activations", options.activations,
                  "What products with quantised weights take: bf16, or int8: faster, less exact; nodes that "
                  "differ share no cached blocks")
      ->check(CLI::IsMember({"bf16", "int8"}))
      ->capture_default_str();
  command
      .add_option("--kv-dtype", options.kv_dtype,
                  "How K and V are stored: bf16, or int8 with a scale for each token and kv head, in about half the "
                  "memory; the same on all nodes")
      ->check(CLI::IsMember({"bf16", "int8"}))
      ->capture_default_str();
  command
      .add_option("--cache-dir", options.cache_dir,
                  "Folder of packed weights: written once, then mapped by all processes; none: packed in memory at "
                  "each start. Default: spillway in the user's cache folder")
      ->type_name("DIR");
  command
      .add_option("--cache-max-bytes", options.cache_max_bytes,
                  "What it may hold, e.g. 64GiB: weights that were not used for longest go first")
      ->transform(CLI::AsSizeValue(false))
      ->check(CLI::Range(uint64_t{1}, uint64_t{1} << 50))
      ->default_str(fmt::format("{}GiB", options.cache_max_bytes >> 30));
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

void add_growth(CLI::App& command, Options& options) {
  command
      .add_option("--growth-margin", options.growth_margin,
                  "Output tokens whose KV a decode node reserves at the start; more is taken as it grows, and when "
                  "memory runs out the youngest request is computed again later")
      ->check(CLI::Range(0u, 1u << 20))
      ->capture_default_str();
}

void add_colocate(CLI::App& command, Options& options) {
  command.add_flag(
      "--colocate", options.colocate,
      "Compute prompts too, while no prefill node takes any, in chunks between the tokens of other requests");
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
      .add_option(
          "--public-prefix-file", options.public_prefix_file,
          "Prefixes whose KV all keys may share, one JSON object a line as a client would send it: messages, or "
          "prompt. Default: nothing is shared between keys")
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

// Of several gateways a node joins each; who binds one takes one.
CLI::Option* add_gateway(CLI::App& command, Options& options, std::string what) {
  const bool joins = command.get_name() == "prefill" || command.get_name() == "decode";
  const auto is_local = [](const std::string& endpoint) {
    const Result<std::string> local = local_control_endpoint(endpoint);
    return local ? std::string() : local.error().detail;
  };
  if (joins) what += fmt::format("; repeatable, up to {}: several gateways share the node", kGatewaysMax);
  return command.add_option("--gateway", options.gateway_endpoints, what)
      ->allow_extra_args(false)
      ->expected(1, joins ? kGatewaysMax : 1)
      ->check(CLI::Validator(is_local, "ENDPOINT"));
}

void add_join(CLI::App& command, Options& options) {
  add_gateway(command, options, "Control endpoint of the gateway: ipc://PATH or tcp://127.0.0.1:PORT")->required();
  command.add_option("--name", options.name, "Name in logs and errors, e.g. \"prefill 0\"");
  command.add_option("--ready-fd", options.ready_fd, "Open descriptor to be told when this process is at work")
      ->configurable(false);
  command.add_option("--packed-fd", options.packed_fd, "Open descriptor of the packed weights, from serve")
      ->configurable(false);
}

void add_status(CLI::App& command, Options& options) {
  command.add_option("--status-socket", options.status_socket, "Socket on which serve says which nodes crash");
}

void add_run_dir(CLI::App& command, Options& options) {
  command
      .add_option("--run-dir", options.run_dir,
                  "Folder for this run's sockets; made where it is missing, and nobody else's (0700)")
      ->required()
      ->type_name("DIR");
}

void add_serve(CLI::App& command, Options& options) {
  command
      .add_option("--prefill", options.prefill,
                  "Prefill nodes to start; 0: decode nodes compute prompts too, until a prefill node joins")
      ->check(CLI::Range(0u, 16u))
      ->capture_default_str();
  command.add_option("--decode", options.decode, "Decode nodes to start")
      ->check(CLI::Range(1u, 16u))
      ->capture_default_str();
  command
      .add_option("--prefill-threads", options.prefill_threads, "Compute threads of each prefill node; 0: --threads")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  command.add_option("--decode-threads", options.decode_threads, "Compute threads of each decode node; 0: --threads")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  command
      .add_option(
          "--prefill-cpus", options.prefill_cpus,
          "CPUs of the prefill nodes, shared out among them, as --cpus. Default: any of --cpus; on several NUMA "
          "nodes, one NUMA node each")
      ->check(kCpuList);
  command.add_option("--decode-cpus", options.decode_cpus, "CPUs of the decode nodes, likewise")->check(kCpuList);
  command
      .add_option("--decode-nice", options.decode_nice,
                  "How readily decode nodes leave a core to a prompt that needs it, as nice(1): first tokens come "
                  "sooner, the others later. For cores that both roles share")
      ->check(CLI::Range(0u, 19u))
      ->capture_default_str();
  command
      .add_option("--restart-delay", options.restart_delay_s,
                  "Seconds before a process that ended is started again; doubled each time, until it stays up")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  command.add_option("--restart-delay-max", options.restart_delay_max_s, "Most seconds between two such starts")
      ->check(CLI::Range(0.01, 3600.0))
      ->capture_default_str();
  add_gateway(command, options,
              "Control endpoint that further nodes may join: ipc://PATH or tcp://127.0.0.1:PORT. Default: one in the "
              "run folder, see the log");
}

void add_drain(CLI::App& command, Options& options) {
  command
      .add_option("--drain-timeout", options.drain_timeout_s,
                  "Seconds that requests have to finish after SIGTERM or SIGINT; a second signal ends them at once")
      ->check(CLI::Range(0u, 86400u))
      ->capture_default_str();
}

void add_fit(CLI::App& command, Options& options) {
  command.add_flag("--fit", options.fit,
                   "Choose --device-memory, --max-model-len and --max-sequences, where not given, from the "
                   "machine and the model, and say why");
}

void add_shell(CLI::App& command, Options& options) {
  command.add_option("shell", options.shell, "bash, zsh or fish")
      ->check(CLI::IsMember({"bash", "zsh", "fish"}))
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

// A list on one flag ("512,4096"), as llama-bench takes it.
void add_list(CLI::App& command, const char* flags, std::vector<uint32_t>& values, uint32_t low, uint32_t high,
              const char* text) {
  constexpr int kItemsMax = 16;
  command.add_option(flags, values, text)
      ->delimiter(',')
      ->expected(1, kItemsMax)
      ->check(CLI::Range(low, high))
      ->type_name("N,...")
      ->default_str(fmt::format("{}", fmt::join(values, ",")));
}

void add_bench(CLI::App& command, Options& options) {
  command.add_option("what", options.bench, "What to measure: engine, the whole of one process")
      ->check(CLI::IsMember({"engine"}))
      ->capture_default_str();
  add_list(command, "-p,--prompt-tokens", options.bench_prompts, 0, 1u << 20, "Lengths of prompts to compute; 0: none");
  add_list(command, "-n,--generate-tokens", options.bench_generates, 0, 1u << 20,
           "Tokens to generate one by one; 0: none");
  add_list(command, "-d,--depth", options.bench_depths, 0, 1u << 20, "Tokens before those, whose KV is there");
  add_list(command, "--batch", options.bench_batches, 1, 1024, "Sequences at once");
  command.add_option("--format", options.format, "table, json or csv")
      ->check(CLI::IsMember(std::vector<std::string>(std::begin(kBenchFormats), std::end(kBenchFormats))))
      ->capture_default_str();
  command.add_option("-r,--repetitions", options.repetitions, "Measured runs of each line")
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
                  "Tests only: NAME[:N] kills the process at the Nth pass of a fault point, NAME[:N]:stop halts it, "
                  "NAME[:N]:wedge holds its thread until SIGCONT, "
                  "NODE-nan[:N] spoils the Nth step's logits of one request")
      ->expected(1, kFaultsMax)
      ->allow_extra_args(false)
      ->configurable(false);
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
    {FlagGroup::kGrowth, "Memory and batches", add_growth},
    {FlagGroup::kColocate, "Nodes", add_colocate},
    {FlagGroup::kHttp, "HTTP API", add_http},
    {FlagGroup::kServe, "Nodes", add_serve},
    {FlagGroup::kFit, "Nodes", add_fit},
    {FlagGroup::kStatus, "Nodes", add_status},
    {FlagGroup::kDrain, "Nodes", add_drain},
    {FlagGroup::kShell, "Shell", add_shell},
    {FlagGroup::kJoin, "Nodes", add_join},
    {FlagGroup::kRunDir, "Nodes", add_run_dir},
    {FlagGroup::kSecret, "Secrets", add_secret},
    {FlagGroup::kPrompt, "Prompt", add_prompt},
    {FlagGroup::kSampling, "Sampling", add_sampling},
    {FlagGroup::kBench, "Measuring", add_bench},
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
  command
      .add_option("--log-format", options.log_format,
                  "text; json: an object a line; auto: json for a server whose stderr is no terminal")
      ->check(CLI::IsMember({"auto", "text", "json"}))
      ->capture_default_str();
  for (CLI::Option* const option : settings_of(command)) {  // for --print-config
    if (option->get_items_expected_max() == 1 && option->get_default_str().empty()) option->capture_default_str();
    if (option->get_default_str() == "[]") option->default_str("");  // a list that takes one: --gateway of serve
  }
}

}  // namespace spillway
