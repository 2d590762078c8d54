#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "bench/machine_share.h"
#include "kernels/bf16.h"
#include "kernels/make_backend.h"

// Products of SmolLM2-135M's shapes on the best ISA level. Weights pass in turn through copies that together exceed the
// caches, as the layers of a model do.
namespace spillway {
namespace {

constexpr size_t kColdBytes = size_t{300} << 20;

// Arguments: rows, features, depth, threads, cold (0: one copy, which stays cached).
void gemm(benchmark::State& state) {
  const auto m = static_cast<uint32_t>(state.range(0)), n = static_cast<uint32_t>(state.range(1)),
             k = static_cast<uint32_t>(state.range(2)), threads = static_cast<uint32_t>(state.range(3));
  const auto backend = make_backend({"auto", threads});
  std::mt19937 random(1);
  std::vector<uint16_t> a(size_t{m} * k), values(size_t{n} * k);
  for (uint16_t& value : a) value = bf16_from_f32(static_cast<float>(random()) * 0x1p-31f - 1.0f);
  for (uint16_t& value : values) value = bf16_from_f32(static_cast<float>(random()) * 0x1p-31f - 1.0f);
  const FileTensor tensor{"bench", StoredType::kBf16, n, k, std::as_bytes(std::span(values))};
  std::vector<Weight> weights;
  do {
    weights.push_back(backend->pack({&tensor, 1}, PackOrder::kRows));
  } while (state.range(4) != 0 && weights.size() * weights[0].bytes < kColdBytes);
  std::vector<float> out(size_t{m} * n);
  size_t turn = 0;
  for ([[maybe_unused]] auto iteration : state) {
    backend->gemm({{reinterpret_cast<std::byte*>(a.data()), DataType::kBf16, {m, k, 1}},
                   &weights[turn++ % weights.size()],
                   Epilogue::kNone,
                   {reinterpret_cast<std::byte*>(out.data()), DataType::kF32, {m, n, 1}}});
    benchmark::ClobberMemory();
  }
  report_share(state, threads, 2.0 * m * n * k, static_cast<double>(weights[0].bytes));
}

BENCHMARK(gemm)
    ->ArgNames({"m", "n", "k", "threads", "cold"})
    ->ArgsProduct({{512}, {1536}, {576}, {1, 2}, {0}})
    ->ArgsProduct({{512}, {576}, {1536}, {1, 2}, {0}})
    ->ArgsProduct({{1, 2, 4, 8, 16, 32}, {3072}, {576}, {1, 2}, {1}})
    ->ArgsProduct({{1, 8}, {576}, {1536}, {1, 2}, {1}})
    ->ArgsProduct({{1, 8}, {49152}, {576}, {1, 2}, {1}})
    ->UseRealTime();

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
