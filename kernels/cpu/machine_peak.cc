#include "kernels/cpu/machine_peak.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

#include "common/check.h"
#include "common/clock.h"
#include "kernels/cpu/avx512.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/worker_pool.h"

namespace spillway {
namespace {

constexpr int kRuns = 5;
constexpr int kChains = 24;  // independent sums: enough to hide the latency of any of the instructions
constexpr uint32_t kSteps = 400'000;
constexpr size_t kReadBytesMin = size_t{256} << 20, kReadBytesMax = size_t{2} << 30;
constexpr size_t kCachesRead = 4;  // as many times the last cache: then it holds too little to matter
constexpr size_t kPrefetchBytes =
    512;  // ahead of each stream; the best of those tried on the machines of docs/performance.md

// Each returns a value made of all sums, so that none can be dropped, and hides their start from the compiler, or it
// would see that all sums are the same one.
SPILLWAY_AVX512 float bf16_loop(uint32_t steps) {
  __m512 sums[kChains] = {};
#pragma GCC unroll 24
  for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  __m512i ones = _mm512_set1_epi32(0x3f803f80);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+v"(ones));  // or the compiler would hoist products
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, (__m512bh)ones, (__m512bh)ones);
  }
  __m512 all = sums[0];
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sums[i]);
  return _mm512_reduce_add_ps(all);
}

SPILLWAY_VNNI float int8_loop(uint32_t steps) {
  __m512i sums[kChains] = {};
#pragma GCC unroll 24
  for (__m512i& sum : sums) __asm__ volatile("" : "+v"(sum));
  __m512i ones = _mm512_set1_epi8(1);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+v"(ones));
#pragma GCC unroll 24
    for (__m512i& sum : sums) sum = _mm512_dpbusd_epi32(sum, ones, ones);
  }
  __m512i all = sums[0];
  for (int i = 1; i < kChains; ++i) all = _mm512_add_epi32(all, sums[i]);
  return static_cast<float>(_mm512_reduce_add_epi32(all));
}

SPILLWAY_AVX512 float f32_loop_avx512(uint32_t steps) {
  __m512 sums[kChains] = {};
#pragma GCC unroll 24
  for (__m512& sum : sums) __asm__ volatile("" : "+v"(sum));
  __m512 ones = _mm512_set1_ps(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+v"(ones));
#pragma GCC unroll 24
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(ones, ones, sum);
  }
  __m512 all = sums[0];
  for (int i = 1; i < kChains; ++i) all = _mm512_add_ps(all, sums[i]);
  return _mm512_reduce_add_ps(all);
}

__attribute__((target("avx2,fma"))) float f32_loop_avx2(uint32_t steps) {
  constexpr int kAvx2Chains = 12;
  __m256 sums[kAvx2Chains] = {};
#pragma GCC unroll 12
  for (__m256& sum : sums) __asm__ volatile("" : "+x"(sum));
  __m256 ones = _mm256_set1_ps(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+x"(ones));
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(ones, ones, sum);
    __asm__ volatile("" : "+x"(ones));
#pragma GCC unroll 12
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(ones, ones, sum);
  }
  __m256 all = sums[0];
  for (int i = 1; i < kAvx2Chains; ++i) all = _mm256_add_ps(all, sums[i]);
  return _mm256_cvtss_f32(all);
}

float f32_loop_sse(uint32_t steps) {
  constexpr int kSseChains = 12;
  __m128 sums[kSseChains] = {};
#pragma GCC unroll 12
  for (__m128& sum : sums) __asm__ volatile("" : "+x"(sum));
  __m128 ones = _mm_set1_ps(1.0f);
  for (uint32_t step = 0; step < steps; ++step) {
    __asm__ volatile("" : "+x"(ones));
#pragma GCC unroll 12
    for (__m128& sum : sums) sum = _mm_add_ps(_mm_mul_ps(ones, ones), sum);
  }
  __m128 all = sums[0];
  for (int i = 1; i < kSseChains; ++i) all = _mm_add_ps(all, sums[i]);
  return _mm_cvtss_f32(all);
}

// SSE2 is part of x86-64; four streams, because one does not keep enough loads in flight.
float read_loop(const char* bytes, size_t count) {
  const size_t quarter = count / 4 / 64 * 64;
  __m128i sums[4] = {};
  for (size_t i = 0; i < quarter; i += 64) {
    for (size_t stream = 0; stream < 4; ++stream) {
      const auto* line = reinterpret_cast<const __m128i*>(bytes + stream * quarter + i);
      _mm_prefetch(reinterpret_cast<const char*>(line) + kPrefetchBytes, _MM_HINT_T0);
      for (int part = 0; part < 4; ++part) sums[stream] = _mm_xor_si128(sums[stream], _mm_load_si128(line + part));
    }
  }
  const __m128i all = _mm_xor_si128(_mm_xor_si128(sums[0], sums[1]), _mm_xor_si128(sums[2], sums[3]));
  return static_cast<float>(_mm_cvtsi128_si32(all));
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
  MachinePeak peak;
  const bool avx512 = cpu::has_avx512_bf16(), avx2 = cpu::has_avx2();
  if (avx512)
    peak.bf16_flops_per_s = best_rate(pool, 64.0 * kChains * kSteps, [](uint32_t) { return bf16_loop(kSteps); });
  if (cpu::has_avx512_vnni())
    peak.int8_ops_per_s = best_rate(pool, 128.0 * kChains * kSteps, [](uint32_t) { return int8_loop(kSteps); });
  if (avx512) {
    peak.f32_flops_per_s = best_rate(pool, 32.0 * kChains * kSteps, [](uint32_t) { return f32_loop_avx512(kSteps); });
  } else if (avx2) {
    peak.f32_flops_per_s = best_rate(pool, 16.0 * 24 * kSteps, [](uint32_t) { return f32_loop_avx2(kSteps); });
  } else {
    peak.f32_flops_per_s = best_rate(pool, 8.0 * 12 * kSteps, [](uint32_t) { return f32_loop_sse(kSteps); });
  }
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
