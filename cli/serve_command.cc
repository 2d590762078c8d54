#include "cli/serve_command.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <thread>

#include "cli/memory_plan.h"
#include "cli/supervisor.h"
#include "common/check.h"
#include "common/fault_points.h"
#include "formats/gguf.h"
#include "model/model_config.h"

namespace spillway {
namespace {

// This run's sockets, readable by this user only; removed at the end.
class RunDirectory {
 public:
  RunDirectory() {
    const char* const runtime = std::getenv("XDG_RUNTIME_DIR");
    path_ = std::string(runtime != nullptr && *runtime != '\0' ? runtime : "/tmp") + "/spillway-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr)
      throw SetupError(fmt::format("cannot make a run folder {}: {}", path_, std::strerror(errno)));
  }
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;
  ~RunDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

uint32_t threads_per_node(const Options& options) {
  if (options.threads > 0) return options.threads;
  // Prefill and decode rarely peak together, so each role may use every core; nodes of one role share them.
  const uint32_t cores = std::max(1u, std::thread::hardware_concurrency());
  return std::max(1u, cores / std::max(options.prefill, options.decode));
}

std::vector<std::string> node_arguments(const Options& options, const std::string& role, uint32_t index,
                                        const std::string& endpoint, const std::string& run_dir) {
  std::vector<std::string> arguments = {role,
                                        "-m",
                                        options.model,
                                        "--gateway",
                                        endpoint,
                                        "--run-dir",
                                        run_dir,
                                        "--name",
                                        fmt::format("{} {}", role, index),
                                        "--threads",
                                        std::to_string(threads_per_node(options)),
                                        "--isa",
                                        options.isa,
                                        "--max-model-len",
                                        std::to_string(options.max_model_len),
                                        "--device-memory",
                                        std::to_string(options.device_memory),
                                        "--chunk-tokens",
                                        std::to_string(options.chunk_tokens),
                                        "--max-sequences",
                                        std::to_string(options.max_sequences),
                                        "--log-level",
                                        options.log_level};
  // A fault point belongs to the first node of its role: "prefill-step:3" arms prefill 0 only.
  for (const std::string& fault : options.faults)
    if (index == 0 && fault.rfind(role, 0) == 0) arguments.insert(arguments.end(), {"--fault", fault});
  return arguments;
}

}  // namespace

int serve_command(const Options& options) {
  const FaultPoints checked(options.faults);  // a typo ends here, not in a child
  {
    const Result<GgufFile> file = GgufFile::open(options.model);
    if (!file) throw SetupError(file.error().detail);
    const Result<ModelConfig> config = read_model_config(*file);
    if (!config) throw SetupError(config.error().detail);
    check_memory(options, *config, options.prefill + options.decode);
  }
  const RunDirectory run;
  const std::string endpoint = "ipc://" + run.path() + "/gateway.sock";
  std::vector<ChildSpec> specs;
  std::vector<std::string> gateway = {"gateway",
                                      "-m",
                                      options.model,
                                      "--gateway",
                                      endpoint,
                                      "--run-dir",
                                      run.path(),
                                      "--name",
                                      "gateway",
                                      "--host",
                                      options.host,
                                      "--port",
                                      std::to_string(options.port),
                                      "--queue-max",
                                      std::to_string(options.queue_max),
                                      "--max-model-len",
                                      std::to_string(options.max_model_len),
                                      "--log-level",
                                      options.log_level};
  if (!options.secret_file.empty()) gateway.insert(gateway.end(), {"--secret-file", options.secret_file});
  specs.push_back({"gateway", std::move(gateway)});
  for (uint32_t index = 0; index < options.prefill; ++index)
    specs.push_back(
        {fmt::format("prefill {}", index), node_arguments(options, "prefill", index, endpoint, run.path())});
  for (uint32_t index = 0; index < options.decode; ++index)
    specs.push_back({fmt::format("decode {}", index), node_arguments(options, "decode", index, endpoint, run.path())});
  return Supervisor(Supervisor::Config{}, std::move(specs)).run();
}

}  // namespace spillway
