#include "kernels/cpu/machine_peak.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "common/check.h"
#include "common/clock.h"
#include "kernels/cpu/machine_loops.h"
#include "kernels/cpu/worker_pool.h"

namespace spillway {
namespace {

constexpr int kRuns = 5;
constexpr uint32_t kSteps = 400'000;
constexpr size_t kReadBytesMin = size_t{256} << 20, kReadBytesMax = size_t{2} << 30;
constexpr size_t kCachesRead = 4;  // as many times the last cache: then it holds too little to matter
constexpr size_t kPrefetchBytes =
    512;  // ahead of each stream; the best of those tried on the machines of docs/performance.md

using Vector = uint64_t __attribute__((vector_size(16), may_alias));

// Four streams, because one does not keep enough loads in flight.
float read_loop(const char* bytes, size_t count) {
  const size_t quarter = count / 4 / 64 * 64;
  Vector sums[4] = {};
  for (size_t i = 0; i < quarter; i += 64) {
    for (size_t stream = 0; stream < 4; ++stream) {
      const char* const line = bytes + stream * quarter + i;
      __builtin_prefetch(line + kPrefetchBytes);
      for (int part = 0; part < 4; ++part) sums[stream] ^= reinterpret_cast<const Vector*>(line)[part];
    }
  }
  const Vector all = sums[0] ^ sums[1] ^ sums[2] ^ sums[3];
  return static_cast<float>(all[0]);
}

size_t beyond_cache_bytes() {
  const long cache = ::sysconf(_SC_LEVEL3_CACHE_SIZE);  // 0 or -1 where unknown
  return std::clamp(kCachesRead * static_cast<size_t>(std::max(cache, 0l)), kReadBytesMin, kReadBytesMax);
}

// `work` per second, when every thread does one call of `body`; the best run is the one that nothing disturbed.
template <class Body>
double best_rate(cpu::WorkerPool& pool, double work, const Body& body) {
  const uint32_t threads = pool.thread_count();
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    std::unique_ptr<volatile float[]> results(new volatile float[threads]);
    const TimePoint start = steady_now();
    pool.parallel_for(threads, [&](uint32_t index, uint32_t) { results[index] = body(index); });
    best = std::max(best, work * threads / seconds(steady_now() - start));
  }
  return best;
}

struct Unmap {
  size_t bytes;
  void operator()(char* mapped) const { ::munmap(mapped, bytes); }
};

}  // namespace

MachinePeak measure_machine_peak(uint32_t threads) {
  cpu::WorkerPool pool(threads);
  const auto rate_of = [&](const cpu::MachineLoop& loop) {
    if (loop.run == nullptr) return 0.0;
    return best_rate(pool, loop.step_operations * kSteps, [&](uint32_t) { return loop.run(kSteps); });
  };
  const cpu::MachineLoops loops = cpu::machine_loops();
  MachinePeak peak;
  peak.bf16_flops_per_s = rate_of(loops.bf16);
  peak.int8_ops_per_s = rate_of(loops.int8);
  peak.f32_flops_per_s = rate_of(loops.f32);
  peak.read_bytes_per_s = measure_read_bandwidth(threads, beyond_cache_bytes());
  return peak;
}

double measure_read_bandwidth(uint32_t threads, size_t bytes) {
  const size_t share = bytes / threads / 256 * 256;
  CHECK(share > 0);
  void* mapped = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED)
    throw SetupError("cannot measure the read bandwidth: " + std::to_string(bytes >> 20) + " MiB are not available");
  const std::unique_ptr<char, Unmap> memory(static_cast<char*>(mapped), Unmap{bytes});
  ::madvise(mapped, bytes, MADV_HUGEPAGE);
  std::memset(mapped, 1, bytes);  // or all pages would be the one zero page
  cpu::WorkerPool pool(threads);
  return best_rate(pool, static_cast<double>(share),
                   [&](uint32_t index) { return read_loop(memory.get() + index * share, share); });
}

}  // namespace spillway
