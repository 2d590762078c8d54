#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "bench/machine_share.h"
#include "kernels/bf16.h"
#include "kernels/make_backend.h"

// bf16 x bf16 -> f32 of oneDNN beside ours: same shapes and threads, weights in each one's packed order beforehand,
// one line each. In turns, with their spread:
//   onednn_gemm --benchmark_repetitions=5 --benchmark_enable_random_interleaving=true
// share_flop is of the machine's vdpbf16ps peak. oneDNN takes the widest instructions that it knows (above 1: AMX);
// ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 holds it to those of that peak.
namespace spillway {
namespace {

struct Shape {
  uint32_t m, n, k, threads;
  explicit Shape(const benchmark::State& state)
      : m(static_cast<uint32_t>(state.range(0))),
        n(static_cast<uint32_t>(state.range(1))),
        k(static_cast<uint32_t>(state.range(2))),
        threads(static_cast<uint32_t>(state.range(3))) {}
  double flops() const { return 2.0 * m * n * k; }
  double weight_bytes() const { return 2.0 * n * k; }
};

std::vector<uint16_t> random_bf16(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<uint16_t> values(count);
  for (uint16_t& value : values) value = bf16_from_f32(static_cast<float>(random()) * 0x1p-31f - 1.0f);
  return values;
}

void ours(benchmark::State& state) {
  const Shape shape(state);
  const auto backend = make_backend({"auto", shape.threads});
  std::vector<uint16_t> a = random_bf16(size_t{shape.m} * shape.k, 1);
  const std::vector<uint16_t> b = random_bf16(size_t{shape.n} * shape.k, 2);
  const FileTensor tensor{"bench", StoredType::kBf16, shape.n, shape.k, std::as_bytes(std::span(b))};
  const Weight weight = backend->pack({&tensor, 1}, PackOrder::kRows);
  std::vector<float> out(size_t{shape.m} * shape.n);
  for ([[maybe_unused]] auto iteration : state) {
    backend->gemm({{reinterpret_cast<std::byte*>(a.data()), DataType::kBf16, {shape.m, shape.k, 1}},
                   &weight,
                   Epilogue::kNone,
                   {reinterpret_cast<std::byte*>(out.data()), DataType::kF32, {shape.m, shape.n, 1}}});
    benchmark::ClobberMemory();
  }
  state.SetLabel(std::string(backend->name()));
  report_share(state, shape.threads, shape.flops(), shape.weight_bytes());
}

std::string onednn_isa() {
  switch (dnnl::get_effective_cpu_isa()) {
    case dnnl::cpu_isa::avx512_core_amx: return "avx512_core_amx";
    case dnnl::cpu_isa::avx512_core_bf16: return "avx512_core_bf16";
    default: return "isa " + std::to_string(static_cast<int>(dnnl::get_effective_cpu_isa()));
  }
}

void onednn(benchmark::State& state) {
  using dnnl::memory;
  const Shape shape(state);
  omp_set_num_threads(static_cast<int>(shape.threads));
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  constexpr auto kBf16 = memory::data_type::bf16;
  const memory::dims a_dims{shape.m, shape.k}, b_dims{shape.k, shape.n}, out_dims{shape.m, shape.n};
  const memory::desc a_rows(a_dims, kBf16, memory::format_tag::ab);
  const dnnl::matmul::primitive_desc plan({a_rows, memory::desc(b_dims, kBf16, memory::format_tag::any),
                                           memory::desc(out_dims, memory::data_type::f32, memory::format_tag::ab)},
                                          engine);
  std::vector<uint16_t> a_values = random_bf16(size_t{shape.m} * shape.k, 1);
  std::vector<uint16_t> b_values = random_bf16(size_t{shape.n} * shape.k, 2);
  memory a(a_rows, engine, a_values.data()), b(plan.weights_desc(), engine), out(plan.dst_desc(), engine);
  memory b_rows(memory::desc(b_dims, kBf16, memory::format_tag::ba), engine, b_values.data());
  dnnl::reorder(b_rows, b).execute(stream, b_rows, b);
  const dnnl::matmul matmul(plan);
  for ([[maybe_unused]] auto iteration : state) {
    matmul.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, out}});
    stream.wait();
    benchmark::ClobberMemory();
  }
  state.SetLabel(onednn_isa());
  report_share(state, shape.threads, shape.flops(), shape.weight_bytes());
}

constexpr auto kShapes = [](auto* bench) {
  bench->ArgNames({"m", "n", "k", "threads"})
      ->ArgsProduct({{512}, {1536}, {576}, {1, 2}})
      ->ArgsProduct({{512}, {4096}, {4096}, {1, 2}})
      ->ComputeStatistics("min", [](const std::vector<double>& runs) { return *std::ranges::min_element(runs); })
      ->ComputeStatistics("max", [](const std::vector<double>& runs) { return *std::ranges::max_element(runs); })
      ->UseRealTime();
};
BENCHMARK(ours)->Name("spillway")->Apply(kShapes);
BENCHMARK(onednn)->Apply(kShapes);

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
