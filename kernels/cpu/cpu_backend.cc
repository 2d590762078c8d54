#include "kernels/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <limits>

#include "common/check.h"
#include "common/huge_pages.h"
#include "common/memory.h"
#include "kernels/make_backend.h"

namespace spillway::cpu {
namespace {

[[noreturn]] void throw_no_memory(size_t bytes, size_t available, const char* cause) {
  throw SetupError(
      fmt::format("cannot allocate memory ({}): {} bytes asked, {} bytes available; lower --device-memory, "
                  "--max-model-len or --chunk-tokens, or free memory",
                  cause, bytes, available));
}

}  // namespace

CpuBackend::CpuBackend(const IsaLevel& isa, const Precision& precision, uint32_t threads, const CpuList& cpus)
    : isa_(isa),
      precision_(precision),
      name_(fmt::format("{}{}{}", isa.backend_name, precision.activations == Activations::kInt8 ? " act8" : "",
                        precision.kv == KvDtype::kInt8 ? " kv8" : "")),
      pool_(threads, cpus),
      scratch_(threads),
      shared_tiles_(threads),
      panel_scratch_(threads),
      codes_(isa.codes[static_cast<size_t>(precision.activations)]),
      prepared_bytes_(codes_.block_bytes > 0 ? kActivationScratchBytes : 0),
      prepared_(std::make_unique_for_overwrite<std::byte[]>(prepared_bytes_)) {}

CpuBackend::~CpuBackend() {
  for (const std::span<std::byte> mapping : mappings_) ::munmap(mapping.data(), mapping.size());
}

std::span<std::byte> CpuBackend::allocate(size_t bytes) {
  CHECK(bytes > 0);
  const size_t available = available_memory_bytes();
  if (bytes > available || bytes > std::numeric_limits<size_t>::max() / 2) {
    throw_no_memory(bytes, available, "more than is available");
  }
  const size_t mapped = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  void* address = ::mmap(nullptr, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw_no_memory(bytes, available, std::strerror(errno));
  mappings_.emplace_back(static_cast<std::byte*>(address), mapped);
  // Weights and KV are read in long runs: fewer TLB misses. Populated now, so that the next allocation sees what is
  // really left and no step pays for page faults. Kernels that lack either advice serve the pages on first touch.
  if (mapped >= kHugePageBytes) ::madvise(address, mapped, MADV_HUGEPAGE);
  if (::madvise(address, mapped, MADV_POPULATE_WRITE) != 0 && (errno == ENOMEM || errno == EFAULT)) {
    throw_no_memory(bytes, available, std::strerror(errno));
  }
  return {static_cast<std::byte*>(address), bytes};
}

}  // namespace spillway::cpu
