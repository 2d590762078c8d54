#include "cli/run_directory.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "common/check.h"

namespace spillway {

namespace {

constexpr size_t kSocketNameMax = sizeof "/bulk-4194304-0123456789abcdef.sock" - 1;  // the longest there (ShmListener)
constexpr size_t kPathMax = 107 - kSocketNameMax;                                    // unix(7)

}  // namespace

RunDirectory::RunDirectory() {
  const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
  for (const std::string parent : {runtime == nullptr ? "" : runtime, "/tmp"}) {
    path_ = parent + "/spillway-XXXXXX";
    if (!parent.empty() && path_.size() <= kPathMax && ::mkdtemp(path_.data()) != nullptr) return;
  }
  throw SetupError(fmt::format("cannot make a run folder {}: {}", path_, std::strerror(errno)));
}

RunDirectory::~RunDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string gateway_endpoint(const Options& options, const RunDirectory& run) {
  return options.gateway_endpoints.empty() ? run.gateway_endpoint() : options.gateway_endpoints.front();
}

std::vector<std::string> node_arguments(const Options& options, std::string_view role, uint32_t index,
                                        const RunDirectory& run) {
  std::vector<std::string> arguments{std::string(role)};
  const auto add = [&](const char* flag, std::string value) {
    arguments.insert(arguments.end(), {flag, std::move(value)});
  };
  add("--model", options.model);
  add("--gateway", gateway_endpoint(options, run));
  add("--run-dir", run.path());
  add("--name", fmt::format("{} {}", role, index));
  add("--threads", std::to_string(options.threads));
  add("--isa", options.isa);
  add("--max-model-len", std::to_string(options.max_model_len));
  add("--device-memory", std::to_string(options.device_memory));
  add("--chunk-tokens", std::to_string(options.chunk_tokens));
  add("--max-sequences", std::to_string(options.max_sequences));
  if (role == "decode") add("--growth-margin", std::to_string(options.growth_margin));
  if (!options.cache_dir.empty()) add("--cache-dir", options.cache_dir);
  add("--log-level", options.log_level);
  add("--log-format", options.log_format);
  return arguments;
}

}  // namespace spillway
