#include "cli/doctor_command.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "cli/memory_plan.h"
#include "cli/supervisor.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "common/memory.h"
#include "common/unique_fd.h"
#include "formats/gguf.h"
#include "kernels/make_backend.h"
#include "model/model_config.h"

namespace spillway {
namespace {

constexpr uint64_t kFilesWanted = 1024;  // sockets, rings and event descriptors of a few nodes and their clients

struct Finding {
  std::string subject, found, used;
  bool good = true;
};

Finding sealed_memory() {
  const UniqueFd fd(::memfd_create("spillway-doctor", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd)
    return {"shared memory", fmt::format("memfd_create fails: {}", std::strerror(errno)), "KV transfer needs it",
            false};
  return {"shared memory", "memfd with seals", "rings of the KV transfer"};
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
    const GgufFile file = value_or_throw(GgufFile::open(options.model));
    const ModelConfig config = value_or_throw(read_model_config(file));
    fmt::print(
        "model: {} layers, hidden {}, {} query and {} KV heads of {}, feed-forward {}, vocabulary {}, context {}\n",
        config.layer_count, config.hidden, config.heads, config.kv_heads, config.head_dim, config.feed_forward,
        config.vocab, config.context_max);
    std::fflush(stdout);
    check_memory(options, config, options.prefill + options.decode);
  }
  return good ? 0 : kExitFailed;
}

}  // namespace spillway
