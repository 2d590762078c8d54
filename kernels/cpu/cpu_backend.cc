#include "kernels/cpu/cpu_backend.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <limits>

#include "common/check.h"
#include "common/memory.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/make_backend.h"
#include "kernels/numerics.h"

namespace spillway::cpu {
namespace {

constexpr size_t kHugePageBytes = size_t{2} << 20;

constexpr IsaLevel kLevels[] = {
    {.name = "scalar",
     .backend_name = "cpu/scalar",
     .numerics = {{kNumericsCpuScalarRev2, kNumericsCpuScalarKv8},
                  {kNumericsCpuScalarAct8, kNumericsCpuScalarAct8Kv8}},
     .gemm_panel = gemm_panel_scalar,
     .codes = {{.gemm_panel = gemm_panel_scalar}, {sizeof(ActivationBlock), quantise_scalar, gemm_panel_int8_scalar}},
     .attention_fold = attention_fold_scalar,
     .widen_codes = widen_codes_scalar},
    {.name = "avx2",
     .backend_name = "cpu/avx2",
     .numerics = {{kNumericsCpuAvx2Rev2, kNumericsCpuAvx2Kv8},
                  {kNumericsCpuAvx2Act8, kNumericsCpuAvx2Act8Kv8}},
     .gemm_panel = gemm_panel_avx2,
     .codes = {{.gemm_panel = gemm_panel_avx2}, {sizeof(ActivationBlock), quantise_avx2, gemm_panel_int8_avx2}},
     .attention_fold = attention_fold_avx2,
     .widen_codes = widen_codes_avx2},
    {.name = "avx512bf16",
     .backend_name = "cpu/avx512bf16",
     .numerics = {{kNumericsCpuAvx512Bf16Rev2, kNumericsCpuAvx512Bf16Rev2Kv8},
                  {kNumericsCpuAvx512Bf16Act8, kNumericsCpuAvx512Bf16Act8Kv8}},
     .gemm_panel = gemm_panel_avx512,
     .codes = {{sizeof(PairBlock), pair_up_avx512, gemm_panel_codes_avx512},
               {sizeof(ActivationBlock), quantise_avx512, gemm_panel_int8_avx512}},
     .attention_fold = attention_fold_avx512,
     .widen_codes = widen_codes_avx512},
};

[[noreturn]] void throw_no_memory(size_t bytes, size_t available, const char* cause) {
  throw SetupError(
      fmt::format("cannot allocate memory ({}): {} bytes asked, {} bytes available; lower --device-memory, "
                  "--max-model-len or --chunk-tokens, or free memory",
                  cause, bytes, available));
}

}  // namespace

std::span<const IsaLevel> available_levels(const Precision& precision) {
  // A prefix of the table: AVX-512 comes only with AVX2, FMA and F16C below it.
  const bool avx512 = has_avx512_bf16() && (precision.activations == Activations::kBf16 || has_avx512_vnni());
  const size_t count = !has_avx2() ? 1 : !avx512 ? 2 : std::size(kLevels);
  return std::span<const IsaLevel>(kLevels).first(count);
}

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
      prepared_(codes_.block_bytes > 0 ? kActivationScratchBytes : 0) {}

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
