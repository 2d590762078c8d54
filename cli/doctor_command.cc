#include "cli/doctor_command.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "cli/api_key_file.h"
#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "cli/secret_file.h"
#include "cli/serve_check.h"
#include "cli/start_gateway.h"
#include "cli/supervisor.h"
#include "cli/tls_files.h"
#include "common/check.h"
#include "common/memory.h"
#include "kernels/make_backend.h"

namespace spillway {
namespace {

struct Finding {
  std::string subject, found, used;
  bool good = true;
};

// `use` where `check` throws no SetupError.
Finding checked(const std::string& subject, const std::string& found, const std::string& use,
                const std::function<void()>& check) {
  try {
    check();
    return {subject, found, use};
  } catch (const SetupError& error) {
    return {subject, found, error.what(), false};
  }
}

// The gateway raises the soft limit itself.
Finding file_limit(const Options& options) {
  const uint64_t wanted = open_files_wanted(http_config_of(options));
  rlimit limit{};
  CHECK(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  const bool enough = limit.rlim_max >= wanted;
  return {"open files", fmt::format("{} at most", limit.rlim_max),
          fmt::format("{} for --queue-max {}{}", wanted, options.queue_max, enough ? "" : ": lower it, or ulimit -n"),
          enough};
}

Finding instruction_sets(const Options& options) {
  const std::vector<std::string> levels = available_isa_levels();
  const bool there = options.isa == "auto" || std::ranges::find(levels, options.isa) != levels.end();
  return {"instruction sets", fmt::format("{}", fmt::join(levels, ", ")),
          fmt::format("--isa {}{}", options.isa,
                      options.isa == "auto" ? " = " + levels.back()
                      : there               ? ""
                                            : " is not among them"),
          there};
}

std::vector<Finding> findings_of(const Options& options) {
  const uint32_t cores = std::thread::hardware_concurrency();
  std::vector<Finding> findings;
  findings.push_back({"cores", std::to_string(cores),
                      fmt::format("{} prefill and {} decode nodes with {} compute threads each", options.prefill,
                                  options.decode, threads_per_node(options))});
  findings.push_back(instruction_sets(options));
  findings.push_back({"memory", human_bytes(available_memory_bytes()) + " available",
                      options.model.empty() ? "see the plan with -m MODEL" : "see the plan below"});
  findings.push_back(checked("shared memory", "memfd with seals", "rings of the KV transfer", check_shared_memory));
  findings.push_back(file_limit(options));
  findings.push_back(
      checked("address", fmt::format("{}:{}", options.host, options.port), "HTTP", [&] { check_address(options); }));
  findings.push_back(checked("exposure", options.host,
                             options.insecure ? "--insecure: as you say" : "safe to listen on",
                             [&] { check_exposure(options); }));
  if (!options.tls_cert.empty() || !options.tls_key.empty())
    findings.push_back(checked("TLS", options.tls_cert, "shown to clients", [&] { (void)read_tls_identity(options); }));
  if (!options.cache_dir.empty())
    findings.push_back(checked("cache folder", options.cache_dir, "packed weights, mapped by all nodes",
                               [&] { check_can_make(options.cache_dir + "/weights"); }));
  findings.push_back(checked("secret", options.secret_file.empty() ? "default" : options.secret_file,
                             "keys the prefix cache", [&] { check_secret(options.secret_file); }));
  if (!options.api_key_file.empty())
    findings.push_back(checked("API keys", options.api_key_file, "clients must show one",
                               [&] { (void)read_api_keys(options.api_key_file); }));
  return findings;
}

}  // namespace

int doctor_command(const Options& options) {
  bool good = true;
  fmt::print("{:<18} {:<26} {}\n", "what", "found", "used as");
  for (const Finding& finding : findings_of(options)) {
    fmt::print("{:<18} {:<26} {}{}\n", finding.subject, finding.found, finding.good ? "" : "PROBLEM: ", finding.used);
    good = good && finding.good;
  }
  if (!options.model.empty()) {
    const ModelFile file(options.model);
    const ModelConfig& config = file.config();
    fmt::print(
        "model: {} layers, hidden {}, {} query and {} KV heads of {}, feed-forward {}, vocabulary {}, context {}\n",
        config.layer_count, config.hidden, config.heads, config.kv_heads, config.head_dim, config.feed_forward,
        config.vocab, config.context_max);
    std::fflush(stdout);
    check_served_model(options);
  }
  return good ? 0 : kExitFailed;
}

}  // namespace spillway
