#include "cli/doctor_command.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/api_key_file.h"
#include "cli/exit_codes.h"
#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "cli/node_placement.h"
#include "cli/packed_model.h"
#include "cli/precision.h"
#include "cli/public_prefix_file.h"
#include "cli/run_directory.h"
#include "cli/secret_file.h"
#include "cli/serve_check.h"
#include "cli/start_gateway.h"
#include "cli/tls_files.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "common/cores.h"
#include "common/memory.h"
#include "kernels/make_backend.h"
#include "model/weights_cache.h"

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
  const std::vector<std::string> levels = available_isa_levels(precision_of(options));
  const bool there = options.isa == "auto" || std::ranges::find(levels, options.isa) != levels.end();
  return {"instruction sets", fmt::format("{}", fmt::join(levels, ", ")),
          fmt::format("--isa {}{}", options.isa,
                      options.isa == "auto" ? " = " + levels.back()
                      : there               ? ""
                                            : " is not among them"),
          there};
}

PackedKey packed_key_of(const Options& options) {
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  return {file.facts().value(), std::string(make_backend({"scalar", 1})->pack_format())};
}

// Where it cannot be used serve packs in memory, so it is no problem.
Finding weights_cache(const Options& options) {
  const WeightsCacheConfig cache = weights_cache_of(options);
  if (cache.folder.empty())
    return {"packed weights", options.cache_dir.empty() ? "no cache folder" : "--cache-dir none",
            "in memory, packed at each start"};
  const WeightsFolder folder(cache.folder);
  uint64_t bytes = 0;
  const std::vector<WeightsFolder::File> files = folder.files();
  for (const WeightsFolder::File& file : files) bytes += file.bytes;
  std::string use = fmt::format("{} file{}, {} of at most {}", files.size(), files.size() == 1 ? "" : "s",
                                human_bytes(bytes), human_bytes(cache.bytes_max));
  if (!options.model.empty()) {
    std::optional<PackedKey> key;
    Finding readable = checked("packed weights", cache.folder, "", [&] { key = packed_key_of(options); });
    if (!key) return readable;
    const Result<PackedWeights> packed = folder.open(*key);
    if (packed) return {"packed weights", cache.folder, use + "; this model is there, undamaged"};
    use += packed.error().code == ErrorCode::kCorrupt ? "; this model is damaged there, the next start packs it again"
                                                      : "; the next start packs this model";
  }
  Finding found = checked("packed weights", cache.folder, use, [&] { check_can_make(cache.folder + "/weights"); });
  if (!found.good) found.used += ": packed in memory, at each start";
  found.good = true;
  return found;
}

// Of runs that were killed. The next start removes them, so they are no problem.
std::vector<std::string> all_leftovers(const Options& options) {
  std::vector<std::string> found = orphaned_run_folders();
  const auto add = [&](std::vector<std::string> more) { found.insert(found.end(), more.begin(), more.end()); };
  add(secret_leftovers(options.secret_file));
  const WeightsCacheConfig cache = weights_cache_of(options);
  if (!cache.folder.empty() && !options.model.empty())
    add(WeightsFolder(cache.folder).leftovers(packed_key_of(options)));
  return found;
}

Finding leftovers_of(const Options& options) {
  const std::string subject = "left by dead runs";
  std::vector<std::string> found;
  Finding finding = checked(subject, "cannot look", "", [&] { found = all_leftovers(options); });
  if (!finding.good) return finding;
  return {subject, std::to_string(found.size()),
          found.empty() ? "nothing" : fmt::format("{}: the next start removes it", fmt::join(found, ", "))};
}

// Their tokens are the model's, so without one nothing can be checked.
Finding public_prefixes(const Options& options) {
  const std::string subject = "public prefixes", found = options.public_prefix_file;
  if (options.model.empty()) return {subject, found, "checked with -m MODEL only"};
  return checked(subject, found, "all keys share their KV", [&] { (void)check_public_prefixes(options); });
}

// Which number is best only a node with its weights can measure; it logs what it found, as does `bench engine`.
std::string compute_threads(const Options& options, Role role) {
  return fmt::format("{} {} nodes with {}{} compute threads each",
                     role == Role::kPrefill ? options.prefill : options.decode, role_name(role),
                     threads_fixed(options, role) > 0 ? "" : "1 (measured at the start) up to ",
                     threads_per_node(options, role));
}

Finding placement(const Options& options) {
  const std::string found = fmt::format("CPU {}", cpu_list_text(allowed_cpus()));
  try {
    const std::string places = places_text(options, served_places(options));
    return {"placement", found, places.empty() ? "nodes run on any of them" : places};
  } catch (const SetupError& error) {
    return {"placement", found, error.what(), false};
  }
}

std::vector<Finding> findings_of(const Options& options) {
  const uint32_t cores = available_cores();
  std::vector<Finding> findings;
  const std::string prefill = options.prefill == 0 ? "no prefill nodes" : compute_threads(options, Role::kPrefill);
  findings.push_back({"cores", std::to_string(cores), prefill + ", " + compute_threads(options, Role::kDecode)});
  findings.push_back(placement(options));
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
  findings.push_back(weights_cache(options));
  findings.push_back(checked("secret", options.secret_file.empty() ? "default" : options.secret_file,
                             "keys the prefix cache", [&] { check_secret(options.secret_file); }));
  if (!options.api_key_file.empty())
    findings.push_back(checked("API keys", options.api_key_file, "clients must show one",
                               [&] { check_api_keys(options.api_key_file); }));
  if (!options.public_prefix_file.empty()) findings.push_back(public_prefixes(options));
  findings.push_back(leftovers_of(options));
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
        "model: {}, {} layers, hidden {}, {} query and {} KV heads of {}, feed-forward {}, vocabulary {}, context "
        "{}{}\n",
        config.architecture.name, config.layer_count, config.hidden, config.heads, config.kv_heads, config.head_dim,
        config.feed_forward, config.vocab, config.context_max,
        config.sliding_window == 0 ? "" : " (its attention window)");
    std::fflush(stdout);
    check_served_model(options);
  }
  return good ? 0 : kExitFailed;
}

}  // namespace spillway
