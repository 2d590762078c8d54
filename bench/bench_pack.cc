#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "kernels/cpu/dequantize.h"
#include "kernels/make_backend.h"

// Packing at load: a 4096 x 4096 matrix of each stored type, with the memory it is packed into (a new backend each
// time, as at start-up). B/s of the packed matrix stand beside memcpy of as many bytes into new memory.
namespace spillway {
namespace {

constexpr uint32_t kRows = 4096, kCols = 4096;

void pack(benchmark::State& state, StoredType type) {
  const auto threads = static_cast<uint32_t>(state.range(0));
  std::vector<std::byte> stored(cpu::stored_row_bytes(type, kCols) * kRows);
  std::mt19937 random(1);
  for (std::byte& byte : stored) byte = static_cast<std::byte>(random() & 0x3f);  // no scale is out of range
  const FileTensor tensor{"bench", type, kRows, kCols, stored};
  size_t packed_bytes = 0;
  for ([[maybe_unused]] auto iteration : state) {
    state.PauseTiming();
    auto backend = make_backend({"auto", threads});
    state.ResumeTiming();
    packed_bytes = backend->pack({&tensor, 1}, PackOrder::kRows).bytes;
    state.PauseTiming();
    backend.reset();
    state.ResumeTiming();
  }
  const auto runs = static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["stored_B/s"] = Counter(static_cast<double>(stored.size()) * runs, Counter::kIsRate);
  state.counters["packed_B/s"] = Counter(static_cast<double>(packed_bytes) * runs, Counter::kIsRate);
}

void copy(benchmark::State& state) {
  const std::vector<std::byte> from(size_t{kRows} * kCols * 2, std::byte{1});
  for ([[maybe_unused]] auto iteration : state) {
    state.PauseTiming();
    auto backend = make_backend({"auto", 1});
    state.ResumeTiming();
    std::memcpy(backend->allocate(from.size()).data(), from.data(), from.size());
    state.PauseTiming();
    backend.reset();
    state.ResumeTiming();
  }
  state.counters["packed_B/s"] = benchmark::Counter(
      static_cast<double>(from.size()) * static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}

BENCHMARK(copy)->UseRealTime();
#define PACK(type) BENCHMARK_CAPTURE(pack, type, StoredType::k##type)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime()
PACK(F32);
PACK(F16);
PACK(Bf16);
PACK(Q8_0);
PACK(Q4_0);
PACK(Q4_1);
PACK(Q5_0);
PACK(Q5_1);
PACK(Q4_K);
PACK(Q5_K);
PACK(Q6_K);

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
