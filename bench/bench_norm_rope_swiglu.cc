#include <benchmark/benchmark.h>

#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/machine_share.h"
#include "kernels/bf16.h"
#include "kernels/make_backend.h"
#include "kernels/rope_table.h"

// The operations between the products, in SmolLM2-135M's shapes, on every fast ISA level of this machine. Bytes are the
// f32 inputs, set against what the machine reads from memory with as many threads: where rows fit in caches, as 512 do,
// the share may pass 1.
namespace spillway {
namespace {

constexpr uint32_t kHidden = 576, kHeads = 9, kKvHeads = 3, kHeadDim = 64, kFeatures = 1536;

std::vector<float> uniform(size_t count) {
  std::mt19937 random(1);
  std::vector<float> values(count);
  for (float& value : values) value = static_cast<float>(random()) * 0x1p-31f - 1.0f;
  return values;
}

template <class T>
TensorView view(std::vector<T>& values, DataType type, std::array<uint32_t, 3> shape) {
  return {reinterpret_cast<std::byte*>(values.data()), type, shape};
}

// Arguments of all: rows, threads.
void rms_norm(benchmark::State& state, const std::string& isa) {
  const auto rows = static_cast<uint32_t>(state.range(0)), threads = static_cast<uint32_t>(state.range(1));
  const auto backend = make_backend({isa, threads});
  std::vector<float> x = uniform(size_t{rows} * kHidden), weight = uniform(kHidden);
  std::vector<uint16_t> out(x.size());
  for ([[maybe_unused]] auto iteration : state) {
    backend->rms_norm({view(x, DataType::kF32, {rows, kHidden, 1}), view(weight, DataType::kF32, {kHidden, 1, 1}),
                       1e-5f, view(out, DataType::kBf16, {rows, kHidden, 1})});
    benchmark::ClobberMemory();
  }
  report_share(state, threads, 0, static_cast<double>(x.size() * sizeof(float)));
}

void rope_append(benchmark::State& state, const std::string& isa) {
  const auto rows = static_cast<uint32_t>(state.range(0)), threads = static_cast<uint32_t>(state.range(1));
  constexpr uint32_t kWidth = (kHeads + 2 * kKvHeads) * kHeadDim;
  const KvLayout layout{1, kKvHeads, kHeadDim, 64};
  const auto backend = make_backend({isa, threads});
  const uint32_t blocks = layout.blocks_for(rows);
  const std::span<std::byte> memory = backend->allocate(blocks * layout.block_bytes());
  std::vector<uint32_t> table(blocks);
  std::iota(table.begin(), table.end(), 0u);
  std::vector<float> qkv = uniform(size_t{rows} * kWidth), angles(size_t{rows} * kHeadDim);
  fill_rope_table({}, kHeadDim, angles);
  std::vector<uint16_t> q(size_t{rows} * kHeads * kHeadDim);
  const TokenSpan span{0, rows, 0, 0};
  for ([[maybe_unused]] auto iteration : state) {
    backend->rope_append({view(qkv, DataType::kF32, {rows, kWidth, 1}),
                          view(table, DataType::kU32, {1, blocks, 1}),
                          {memory.data(), 0, layout, blocks},
                          0,
                          {&span, 1},
                          kHeads,
                          view(angles, DataType::kF32, {rows, kHeadDim, 1}),
                          view(q, DataType::kBf16, {rows, kHeads, kHeadDim})});
    benchmark::ClobberMemory();
  }
  report_share(state, threads, 0, static_cast<double>(qkv.size() * sizeof(float)));
}

// SwiGLU is an epilogue: a product of depth 2, so that little else is left. Bytes are gate and up as f32, which a
// separate operation would read.
void swiglu(benchmark::State& state, const std::string& isa) {
  const auto rows = static_cast<uint32_t>(state.range(0)), threads = static_cast<uint32_t>(state.range(1));
  const auto backend = make_backend({isa, threads});
  const std::vector<float> values = uniform(size_t{kFeatures} * 2);
  const FileTensor tensor{"bench", StoredType::kF32, kFeatures, 2, std::as_bytes(std::span(values))};
  const FileTensor tensors[] = {tensor, tensor};
  const Weight weight = backend->pack(tensors, PackOrder::kGateUp);
  std::vector<uint16_t> a(size_t{rows} * 2, bf16_from_f32(0.5f)), out(size_t{rows} * kFeatures);
  for ([[maybe_unused]] auto iteration : state) {
    backend->gemm({view(a, DataType::kBf16, {rows, 2, 1}), &weight, Epilogue::kSwiGlu,
                   view(out, DataType::kBf16, {rows, kFeatures, 1})});
    benchmark::ClobberMemory();
  }
  report_share(state, threads, 0, 8.0 * rows * kFeatures);
}

void arguments(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "threads"})->ArgsProduct({{1, 512, 16384}, {1, 2}})->UseRealTime();
}

[[maybe_unused]] const int kRegistered = for_each_fast_level("rms_norm", rms_norm, arguments) +
                                         for_each_fast_level("rope_append", rope_append, arguments) +
                                         for_each_fast_level("swiglu", swiglu, arguments);

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
