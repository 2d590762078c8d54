#include "cli/doctor_command.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <string>
#include <thread>
#include <vector>

#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "cli/serve_check.h"
#include "cli/supervisor.h"
#include "common/check.h"
#include "common/memory.h"
#include "kernels/make_backend.h"

namespace spillway {
namespace {

constexpr uint64_t kFilesWanted = 1024;  // sockets, rings and event descriptors of a few nodes and their clients

struct Finding {
  std::string subject, found, used;
  bool good = true;
};

Finding sealed_memory() {
  try {
    check_shared_memory();
    return {"shared memory", "memfd with seals", "rings of the KV transfer"};
  } catch (const SetupError& error) {
    return {"shared memory", "no memfd", error.what(), false};
  }
}

Finding file_limit() {
  rlimit limit{};
  CHECK(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_cur < kFilesWanted)
    return {"open files", std::to_string(limit.rlim_cur),
            fmt::format("wanted {}: ulimit -n {}", kFilesWanted, kFilesWanted), false};
  return {"open files", std::to_string(limit.rlim_cur), fmt::format("about {}", kFilesWanted)};
}

}  // namespace

int doctor_command(const Options& options) {
  const std::vector<std::string> levels = available_isa_levels();
  std::vector<Finding> findings;
  findings.push_back(
      {"cores", std::to_string(std::thread::hardware_concurrency()), "--threads, shared by the nodes of a role"});
  findings.push_back({"instruction sets", fmt::format("{}", fmt::join(levels, ", ")), levels.back() + " (--isa auto)"});
  findings.push_back({"memory", human_bytes(available_memory_bytes()) + " available", "see below with -m MODEL"});
  findings.push_back(sealed_memory());
  findings.push_back(file_limit());

  bool good = true;
  fmt::print("{:<18} {:<26} {}\n", "what", "found", "used as");
  for (const Finding& finding : findings) {
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
