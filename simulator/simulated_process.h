#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "engine/compute_job.h"
#include "engine/engine.h"
#include "gateway/gateway.h"
#include "kv/kv_cache.h"
#include "simulator/simulated_executor.h"
#include "simulator/synthetic_model.h"
#include "transfer/control_channel.h"
#include "transfer/kv_transport.h"
#include "transfer/transfer_worker.h"

namespace spillway {

struct SimulatedNodeConfig {
  SyntheticModel model;
  NumericsClass numerics{};
  BlockEncoding encoding() const { return {.dtype = model.layout.dtype, .numerics = numerics}; }
  uint32_t slots = 0;
  BatchLimits limits;
  uint32_t requests_max = 0;  // attempts held at once
  // Received at once by a decode node, at most twice that. It is not announced: with fewer, nodes refuse what was
  // within their gateway's share.
  uint32_t transfers_max = std::numeric_limits<uint32_t>::max();
  bool refuses_within_shares() const { return transfers_max < 2 * requests_max; }
  uint32_t max_model_len = 0;
  uint32_t growth_margin = 0;  // of decode nodes
  bool colocates = false;      // likewise
  uint32_t send_window = 8, layers_per_frame = 2;
  SimulatedExecutor::Speed speed;
  Duration lease = std::chrono::seconds(5), hold_max = std::chrono::seconds(10);
};

// What a process asks of the world around it, in order.
using ProcessEffect =
    std::variant<SendMessage, ConnectPeer, TransferJob, StepPlan, StreamToken, StreamScores, StreamEnd, StreamError>;

// What the compute and the transfer thread of a node own, and the loop's ledger.
struct NodeParts {
  NodeParts(const SimulatedNodeConfig& config, bool announce_layers, std::unique_ptr<KvTransport> transport);

  std::vector<std::byte> memory;
  SlotArena arena;
  KvCache cache;
  Engine engine;
  SimulatedExecutor executor;
  TransferWorker worker;
};

// One process: the core that the real process runs, with all that the core owns. The world brings it events and
// carries out its effects.
class SimulatedProcess {
 public:
  virtual ~SimulatedProcess() = default;
  virtual void on_control(const ControlEvent& event, TimePoint now) = 0;
  virtual void on_deadline(TimePoint now) = 0;
  virtual TimePoint next_deadline() const = 0;
  virtual void check_conservation() const = 0;
  // Names what is still held, when nothing should be; empty: nothing.
  virtual std::string leftovers() const = 0;
  // A node's; the gateway is asked for none (CHECK).
  virtual void on_compute(const ComputeEvent& event, TimePoint now) = 0;
  virtual void on_transfer(const TransferEvent& event, TimePoint now) = 0;
  virtual void on_drain(TimePoint now) = 0;
  virtual bool drained() const = 0;  // it may leave
  virtual NodeParts* parts() = 0;    // nullptr: the gateway
  // The gateway's; a node is told of none (CHECK).
  virtual void on_client(const GatewayEvent& event, TimePoint now) = 0;

  std::vector<ProcessEffect> take_effects() { return std::exchange(effects_, {}); }

 protected:
  std::vector<ProcessEffect> effects_;
};

std::unique_ptr<SimulatedProcess> make_simulated_gateway(const GatewayConfig& config, BootId boot);
std::unique_ptr<SimulatedProcess> make_simulated_prefill(const SimulatedNodeConfig& config,
                                                         std::unique_ptr<KvTransport> transport);
std::unique_ptr<SimulatedProcess> make_simulated_decode(const SimulatedNodeConfig& config, BootId boot,
                                                        std::unique_ptr<KvTransport> transport);

}  // namespace spillway
