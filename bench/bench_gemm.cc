#include <benchmark/benchmark.h>

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "bench/machine_share.h"
#include "kernels/bf16.h"
#include "kernels/cpu/dequantize.h"
#include "kernels/make_backend.h"

// Products of SmolLM2-135M's shapes on every fast ISA level of this machine. Weights pass in turn through copies that
// together exceed the caches, as the layers of a model do. B/s are those of the packed weights.
namespace spillway {
namespace {

constexpr size_t kColdBytes = size_t{300} << 20;

// Random ones; of a quantised type with scales of usual size.
std::vector<std::byte> stored_weights(StoredType type, uint32_t n, uint32_t k, std::mt19937& random) {
  std::vector<std::byte> bytes(cpu::stored_row_bytes(type, k) * n);
  if (type == StoredType::kBf16) {
    for (size_t at = 0; at < bytes.size(); at += sizeof(uint16_t)) {
      const uint16_t value = bf16_from_f32(static_cast<float>(random()) * 0x1p-31f - 1.0f);
      std::memcpy(&bytes[at], &value, sizeof value);
    }
    return bytes;
  }
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  constexpr uint16_t kScales[] = {0x2400, 0x2400};  // 2^-6, of f16
  const size_t scale_bytes = type == StoredType::kQ4_1 ? 4 : 2, block_bytes = cpu::stored_block(type).bytes;
  for (size_t at = 0; at < bytes.size(); at += block_bytes) std::memcpy(&bytes[at], kScales, scale_bytes);
  return bytes;
}

// What a product needs but its rows. Google Benchmark calls the body several times for a figure, and packing takes
// longer than the products, so the last one's is kept.
struct Packed {
  std::string isa;
  StoredType type;
  Activations activations;
  uint32_t n, k, threads;
  bool cold;
  std::unique_ptr<Backend> backend = nullptr;
  std::vector<Weight> weights = {};

  bool is_for(const Packed& other) const {
    const auto key = [](const Packed& p) {
      return std::tie(p.isa, p.type, p.activations, p.n, p.k, p.threads, p.cold);
    };
    return key(*this) == key(other);
  }
};

Packed& packed_for(Packed wanted) {
  static Packed last{};
  if (last.backend != nullptr && last.is_for(wanted)) return last;
  last = Packed{};
  wanted.backend = make_backend({.isa = wanted.isa, .threads = wanted.threads, .precision = {wanted.activations}});
  std::mt19937 random(1);
  const std::vector<std::byte> values = stored_weights(wanted.type, wanted.n, wanted.k, random);
  const FileTensor tensor{"bench", wanted.type, wanted.n, wanted.k, values};
  do {
    wanted.weights.push_back(wanted.backend->pack({&tensor, 1}, PackOrder::kRows));
  } while (wanted.cold && wanted.weights.size() * wanted.weights[0].bytes < kColdBytes);
  return last = std::move(wanted);
}

// Arguments: rows, features, depth, threads, cold (0: one copy, which stays cached).
void gemm(benchmark::State& state, const std::string& isa, StoredType type,
          Activations activations = Activations::kBf16) {
  const auto m = static_cast<uint32_t>(state.range(0)), n = static_cast<uint32_t>(state.range(1)),
             k = static_cast<uint32_t>(state.range(2)), threads = static_cast<uint32_t>(state.range(3));
  const Packed& packed = packed_for({isa, type, activations, n, k, threads, state.range(4) != 0});
  const auto& [backend, weights] = std::tie(packed.backend, packed.weights);
  std::mt19937 random(1);
  std::vector<uint16_t> a(size_t{m} * k);
  for (uint16_t& value : a) value = bf16_from_f32(static_cast<float>(random()) * 0x1p-31f - 1.0f);
  std::vector<float> out(size_t{m} * n);
  size_t turn = 0;
  for ([[maybe_unused]] auto iteration : state) {
    backend->gemm({{reinterpret_cast<std::byte*>(a.data()), DataType::kBf16, {m, k, 1}},
                   &weights[turn++ % weights.size()],
                   Epilogue::kNone,
                   {reinterpret_cast<std::byte*>(out.data()), DataType::kF32, {m, n, 1}}});
    benchmark::ClobberMemory();
  }
  report_share(state, threads, 2.0 * m * n * k, static_cast<double>(weights[0].bytes), activations);
}

void gemm_bf16(benchmark::State& state, const std::string& isa) { gemm(state, isa, StoredType::kBf16); }
void gemm_q4_1(benchmark::State& state, const std::string& isa) { gemm(state, isa, StoredType::kQ4_1); }
void gemm_q8_0(benchmark::State& state, const std::string& isa) { gemm(state, isa, StoredType::kQ8_0); }
void gemm_q4_1_act8(benchmark::State& state, const std::string& isa) {
  gemm(state, isa, StoredType::kQ4_1, Activations::kInt8);
}
void gemm_q8_0_act8(benchmark::State& state, const std::string& isa) {
  gemm(state, isa, StoredType::kQ8_0, Activations::kInt8);
}

constexpr auto kNarrowShapes = [](auto* bench) {
  bench->ArgNames({"m", "n", "k", "threads", "cold"})
      ->ArgsProduct({{512}, {1536}, {576}, {1, 2}, {0}})
      ->ArgsProduct({{1, 8}, {49152}, {576}, {1, 2}, {1}})
      ->ArgsProduct({{1, 8}, {576}, {1536}, {1, 2}, {1}})
      ->UseRealTime();
};

[[maybe_unused]] const int kRegistered =
    for_each_fast_level("gemm", gemm_bf16,
                        [](auto* bench) {
                          bench->ArgNames({"m", "n", "k", "threads", "cold"})
                              ->ArgsProduct({{512}, {1536}, {576}, {1, 2}, {0}})
                              ->ArgsProduct({{512}, {576}, {1536}, {1, 2}, {0}})
                              ->ArgsProduct({{1, 2, 4, 8, 16, 32}, {3072}, {576}, {1, 2}, {1}})
                              ->ArgsProduct({{1, 8}, {576}, {1536}, {1, 2}, {1}})
                              ->ArgsProduct({{1, 8}, {49152}, {576}, {1, 2}, {1}})
                              ->UseRealTime();
                        }) +
    for_each_fast_level("gemm_q4_1", gemm_q4_1, kNarrowShapes) +
    for_each_fast_level("gemm_q8_0", gemm_q8_0, kNarrowShapes) +
    for_each_fast_level("gemm_q4_1_act8", gemm_q4_1_act8, kNarrowShapes) +
    for_each_fast_level("gemm_q8_0_act8", gemm_q8_0_act8, kNarrowShapes);

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
