#include <benchmark/benchmark.h>
#include <poll.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "common/check.h"
#include "kv/digest.h"
#include "transfer/shm_transport.h"

// KV parts from one thread's memory to another's through shared memory rings, digested on both sides as in serving,
// against plain memcpy of the same pieces in the same run. Both walk arenas that exceed the caches.
namespace spillway {
namespace {

constexpr size_t kPartBytes = 48 << 10;  // one layer of one block of SmolLM2-135M
constexpr size_t kArenaBytes = 1365 * kPartBytes;
constexpr PeerId kPeer{1};

std::vector<std::byte>& source() {
  static std::vector<std::byte> bytes(kArenaBytes, std::byte{1});
  return bytes;
}
std::vector<std::byte>& destination() {
  static std::vector<std::byte> bytes(kArenaBytes, std::byte{2});
  return bytes;
}

// The piece number `turn` of an arena.
std::span<std::byte> piece(std::vector<std::byte>& arena, uint64_t turn, size_t bytes) {
  return std::span(arena).subspan(turn % (kArenaBytes / bytes) * bytes, bytes);
}

double memcpy_bytes_per_s(size_t bytes) {
  double best = 0;
  for (int round = 0; round < 5; ++round) {
    const auto begun = std::chrono::steady_clock::now();
    const uint64_t pieces = kArenaBytes / bytes;
    for (uint64_t i = 0; i < pieces; ++i)
      std::memcpy(piece(destination(), i, bytes).data(), piece(source(), i, bytes).data(), bytes);
    benchmark::ClobberMemory();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begun;
    best = std::max(best, static_cast<double>(pieces * bytes) / took.count());
  }
  return best;
}

void sleep_on(const KvTransport& transport) {
  pollfd entry{transport.ready_fd(), POLLIN, 0};
  ::poll(&entry, 1, 100);
}

void receive(KvTransport& transport, size_t bytes, const std::atomic<bool>& stopping) {
  std::array<TransportEvent, 16> events;
  uint64_t landed = 0;
  while (!stopping) {
    const size_t count = transport.poll(events);
    for (size_t i = 0; i < count; ++i)
      if (const auto* const arrived = std::get_if<Arrived>(&events[i]))
        transport.accept(arrived->arrival, piece(destination(), landed++, bytes), kPartBytes);
    if (count == 0) sleep_on(transport);
  }
}

// Arguments: parts per frame, ring size in MiB.
void shm(benchmark::State& state) {
  const size_t bytes = static_cast<size_t>(state.range(0)) * kPartBytes;
  std::string directory = "/tmp/spillway-bench-XXXXXX";
  CHECK(::mkdtemp(directory.data()) != nullptr);
  {
    const ShmConfig config{directory, 2, static_cast<size_t>(state.range(1)) << 20, bytes, std::chrono::seconds(5)};
    const auto from = make_shm_transport(config), to = make_shm_transport(config);
    from->connect(kPeer, to->endpoint());
    to->connect(kPeer, from->endpoint());
    std::atomic<bool> stopping = false;
    std::thread receiver([&] { receive(*to, bytes, stopping); });
    std::array<TransportEvent, 16> events;
    uint32_t in_flight = 0;
    uint64_t sent = 0;
    bool ready = false;
    const auto look = [&] {
      const size_t count = from->poll(events);
      for (size_t i = 0; i < count; ++i) {
        ready = ready || std::holds_alternative<PeerReady>(events[i]);
        if (std::holds_alternative<Sent>(events[i])) --in_flight;
      }
      if (count == 0) sleep_on(*from);
    };
    while (!ready) look();
    std::vector<uint32_t> digests;
    for ([[maybe_unused]] auto iteration : state) {
      while (in_flight == from->window()) look();
      const auto payload = piece(source(), sent, bytes);
      digests.clear();
      for (size_t offset = 0; offset < bytes; offset += kPartBytes)
        digests.push_back(part_digest(payload.subspan(offset, kPartBytes)));
      from->send(SendId{sent++}, kPeer, {{}, {}, 0, {0, 1}, static_cast<uint32_t>(bytes), combine_digests(digests)},
                 payload);
      ++in_flight;
    }
    while (in_flight > 0) look();
    stopping = true;
    receiver.join();
  }
  std::filesystem::remove_all(directory);
  const double copied = static_cast<double>(bytes) * static_cast<double>(state.iterations());
  const double limit = memcpy_bytes_per_s(bytes);
  state.counters["B/s"] = benchmark::Counter(copied, benchmark::Counter::kIsRate);
  state.counters["memcpy_B/s"] = limit;
  state.counters["share"] = benchmark::Counter(copied / limit, benchmark::Counter::kIsRate);
}

BENCHMARK(shm)->ArgNames({"parts", "ring_mib"})->ArgsProduct({{1, 4}, {2, 4, 16}})->UseRealTime();

}  // namespace
}  // namespace spillway

BENCHMARK_MAIN();
