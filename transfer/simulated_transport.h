#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "transfer/kv_transport.h"

namespace spillway {

// KvTransport inside one process for tests: delivers in order between the members of one SimulatedFabric, with seeded
// faults; the same calls in the same order give the same events. Passes the same conformance suite as ShmTransport. A
// frame can be polled by its receiver as soon as it is sent; who wants delay polls later. There is no clock: a
// connection waits as long as the other member lives. ready_fd() is -1. One thread.
class SimulatedFabric {
 public:
  struct Faults {
    double corrupt = 0;     // probability that a delivered payload has a flipped bit
    double disconnect = 0;  // probability, per send, that the link breaks
  };
  SimulatedFabric(uint64_t seed, Faults faults);
  ~SimulatedFabric();
  std::unique_ptr<KvTransport> make_member();  // must not outlive the fabric
  // Breaks the links of the member with this endpoint(), as the death of its process would; it may connect again.
  void break_links(std::span<const std::byte> endpoint);

 private:
  struct State;
  std::unique_ptr<State> state_;
  friend class SimulatedTransport;
};

}  // namespace spillway
