#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "bench/machine_share.h"
#include "kernels/bf16.h"
#include "kernels/make_backend.h"

// Attention of SmolLM2-135M's layer shape (9 query heads, 3 kv heads, 64 dims) and of groups 1, 4, 8, on every
// fast ISA level of this machine, over blocks scattered in a pool of kColdBytes; and what reading alone takes there.
namespace spillway {
namespace {

constexpr size_t kColdBytes = size_t{300} << 20;

// Arguments: sequences, rows of each, position of the last row, query heads, kv heads, threads, KvDtype.
void attention(benchmark::State& state, const std::string& isa) {
  const auto sequences = static_cast<uint32_t>(state.range(0)), rows = static_cast<uint32_t>(state.range(1)),
             last = static_cast<uint32_t>(state.range(2)), heads = static_cast<uint32_t>(state.range(3)),
             threads = static_cast<uint32_t>(state.range(5));
  const auto dtype = static_cast<KvDtype>(state.range(6));
  const KvLayout layout{1, static_cast<uint16_t>(state.range(4)), 64, 64, dtype};
  const auto backend = make_backend({.isa = isa, .threads = threads, .precision = {.kv = dtype}});
  const uint32_t blocks = layout.blocks_for(last + 1);
  const auto slots = std::max(static_cast<uint32_t>(kColdBytes / layout.block_bytes()), blocks * sequences);
  const std::span<std::byte> memory = backend->allocate(slots * layout.block_bytes());
  std::mt19937 random(1);
  const auto fill = [&](std::span<uint16_t> values) {
    for (uint16_t& value : values) value = bf16_from_f32(static_cast<float>(random()) * 0x1p-31f - 1.0f);
  };
  const size_t pattern = std::min(memory.size(), size_t{1} << 20);  // drawn once: what the values are does not matter
  fill({reinterpret_cast<uint16_t*>(memory.data()), pattern / 2});  // int8: whatever codes and scales that makes
  for (size_t at = pattern; at < memory.size(); at += pattern) {
    std::memcpy(&memory[at], memory.data(), std::min(pattern, memory.size() - at));
  }
  std::vector<uint16_t> q(size_t{sequences} * rows * heads * 64), out(q.size());
  fill(q);
  std::vector<uint32_t> table(slots / (blocks * sequences) * blocks * sequences);
  std::iota(table.begin(), table.end(), 0u);
  std::shuffle(table.begin(), table.end(), random);
  std::vector<TokenSpan> spans;
  for (uint32_t s = 0; s < sequences; ++s) spans.push_back({s * rows, rows, last + 1 - rows, s});
  const std::array<uint32_t, 3> shape{sequences * rows, heads, 64};
  size_t turn = 0;
  for ([[maybe_unused]] auto iteration : state) {  // each time other blocks
    uint32_t* const row = &table[turn++ * blocks * sequences % table.size()];
    backend->attention({{reinterpret_cast<std::byte*>(q.data()), DataType::kBf16, shape},
                        {reinterpret_cast<std::byte*>(row), DataType::kU32, {sequences, blocks, 1}},
                        {memory.data(), 0, layout, slots},
                        0,
                        spans,
                        0.125f,
                        {reinterpret_cast<std::byte*>(out.data()), DataType::kBf16, shape}});
    benchmark::ClobberMemory();
  }
  const OpCounters& counters = backend->counters();
  const auto runs = static_cast<double>(state.iterations());
  report_share(state, threads, static_cast<double>(counters.attention_flops) / runs,
               static_cast<double>(counters.kv_bytes) / runs);
}

// Reads pieces of state.range(0) bytes that lie scattered, each once: 8 KiB as decode attention finds a fold's K of one
// kv head, 48 KiB what a block has of a layer. Fetched into L2 16 KiB ahead or more, or left to the processor. Its
// limit is one long run.
void pieces(benchmark::State& state) {
  const auto bytes = static_cast<size_t>(state.range(0));
  const bool fetched = state.range(1) != 0;
  constexpr size_t kLine = 64, kAhead = size_t{16} << 10;
  const auto backend = make_backend({"scalar", 1});
  const std::span<std::byte> memory = backend->allocate(kColdBytes);
  std::memset(memory.data(), 1, memory.size());
  std::vector<uint32_t> order(memory.size() / bytes);
  std::iota(order.begin(), order.end(), 0u);
  std::shuffle(order.begin(), order.end(), std::mt19937(1));
  const size_t pieces_ahead = std::max<size_t>(1, kAhead / bytes);
  uint64_t sum = 0;
  for ([[maybe_unused]] auto iteration : state) {
    for (size_t piece = 0; piece < order.size(); ++piece) {
      const std::byte* const ahead = &memory[order[(piece + pieces_ahead) % order.size()] * bytes];
      const std::byte* const here = &memory[order[piece] * bytes];
      for (size_t offset = 0; offset < bytes; offset += kLine) {
        if (fetched) __builtin_prefetch(ahead + offset, 0, 2);
        uint64_t words[kLine / sizeof(uint64_t)];
        std::memcpy(words, here + offset, kLine);
        for (const uint64_t word : words) sum += word;
      }
    }
    benchmark::DoNotOptimize(sum);
  }
  report_share(state, 1, 0, static_cast<double>(order.size() * bytes));
}
BENCHMARK(pieces)->ArgNames({"bytes", "fetched"})->ArgsProduct({{8 << 10, 48 << 10}, {0, 1}})->UseRealTime();

[[maybe_unused]] const int kRegistered = for_each_fast_level("attention", attention, [](auto* bench) {
  bench->ArgNames({"sequences", "rows", "last", "heads", "kv_heads", "threads", "int8"})
      ->ArgsProduct({{1, 8}, {1}, {511, 2047}, {9}, {3}, {1, 2}, {0, 1}})
      ->ArgsProduct({{1}, {1}, {3999}, {9}, {3}, {1, 2}, {0, 1}})
      ->ArgsProduct({{8}, {1}, {2047}, {3}, {3}, {1, 2}, {0, 1}})
      ->ArgsProduct({{8}, {1}, {2047}, {32}, {4, 8}, {1, 2}, {0, 1}})
      ->ArgsProduct({{1}, {512}, {511, 2047}, {9}, {3}, {1, 2}, {0, 1}})
      ->UseRealTime();
});

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
