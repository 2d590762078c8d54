#pragma once

#include <poll.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/clock.h"
#include "kv/digest.h"
#include "transfer/kv_transport.h"
#include "transfer/shm_transport.h"
#include "transfer/simulated_transport.h"

namespace spillway {

enum class TransportKind : uint8_t { kShm, kSimulated };

class SocketDirectory {  // 0700, gone with its files at the end
 public:
  SocketDirectory() : path_("/tmp/spillway-test-XXXXXX") { CHECK(::mkdtemp(path_.data()) != nullptr); }
  ~SocketDirectory() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// One transport and all that it has said.
struct TransportEnd {
  std::unique_ptr<KvTransport> transport;
  std::vector<TransportEvent> events;

  template <class Event>
  std::vector<Event> all() const {
    std::vector<Event> found;
    for (const TransportEvent& event : events)
      if (const auto* const one = std::get_if<Event>(&event)) found.push_back(*one);
    return found;
  }
  size_t poll() {
    std::array<TransportEvent, 7> taken;  // odd and small: events must survive a short span
    const size_t count = transport->poll(taken);
    events.insert(events.end(), taken.begin(), taken.begin() + static_cast<ptrdiff_t>(count));
    return count;
  }
};

// Makes transports of one kind that can reach each other.
class TransportMaker {
 public:
  explicit TransportMaker(TransportKind kind, size_t ring_bytes = 1 << 16, SimulatedFabric::Faults faults = {})
      : kind_(kind), ring_bytes_(ring_bytes), fabric_(7, faults) {}
  std::unique_ptr<KvTransport> make() {
    if (kind_ == TransportKind::kSimulated) return fabric_.make_member();
    ShmConfig config;
    config.socket_directory = directory_.path();
    config.peers_max = 4;
    config.ring_bytes = ring_bytes_;
    config.frame_bytes_max = ring_bytes_ - 128;
    config.establish_max = std::chrono::milliseconds(300);
    return make_shm_transport(config);
  }

 private:
  const TransportKind kind_;
  const size_t ring_bytes_;
  SocketDirectory directory_;
  SimulatedFabric fabric_;
};

// Polls the ends until `done`, sleeping only as ready_fd() allows. False: nothing more came for five seconds.
inline bool run_until(std::vector<TransportEnd*> ends, const std::function<bool()>& done) {
  const TimePoint deadline = steady_now() + std::chrono::seconds(5);
  while (!done()) {
    size_t moved = 0;
    for (TransportEnd* const end : ends) moved += end->poll();
    if (moved > 0) continue;
    if (steady_now() > deadline) return done();
    std::vector<pollfd> sources;
    for (const TransportEnd* const end : ends)
      if (end->transport->ready_fd() >= 0) sources.push_back({end->transport->ready_fd(), POLLIN, 0});
    if (sources.empty()) return done();  // simulated: what is not there now never comes
    ::poll(sources.data(), sources.size(), 1000);
  }
  return true;
}

inline std::vector<std::byte> random_bytes(std::mt19937_64& random, size_t count) {
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

// Header of a one-part frame with the right digest.
inline FrameHeader header_of(uint64_t counter, const std::vector<std::byte>& payload) {
  FrameHeader header;
  header.transfer = {BootId{0x1234567812345678}, counter};
  header.epoch = Epoch{3};
  header.block_index = static_cast<uint32_t>(counter);
  header.layers = {1, 1};
  header.bytes = static_cast<uint32_t>(payload.size());
  const uint32_t digest = part_digest(payload);
  header.digest = combine_digests({&digest, 1});
  return header;
}

}  // namespace spillway
