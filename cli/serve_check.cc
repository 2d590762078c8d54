#include "cli/serve_check.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>

#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "common/check.h"
#include "common/unique_fd.h"

namespace spillway {

void check_shared_memory() {
  const UniqueFd fd(::memfd_create("spillway-check", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) throw SetupError(fmt::format("KV transfer needs memfd_create, which fails: {}", std::strerror(errno)));
}

void check_served_model(const Options& options) {
  const ModelFile file(options.model);
  check_memory(options, file.config());
}

}  // namespace spillway
