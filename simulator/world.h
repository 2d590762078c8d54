#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "simulator/coverage.h"
#include "simulator/credit_watch.h"
#include "simulator/faults.h"
#include "simulator/faulty_transport.h"
#include "simulator/interceptor.h"
#include "simulator/oracle.h"
#include "simulator/random.h"
#include "simulator/simulated_network.h"
#include "simulator/simulated_process.h"
#include "transfer/simulated_transport.h"

namespace spillway {

struct WorldConfig {
  uint64_t seed = 0;
  uint32_t gateways = 1, prefill = 2, decode = 2;
  std::set<ProcessId> absent;  // of those, until ProcessStarts
  GatewayConfig gateway;
  SimulatedNodeConfig node;
  std::map<ProcessId, NumericsClass> numerics;  // of the nodes that compute in another class than node.numerics
  SimulatedNetwork::Delays delays;
  Duration bulk_delay_max = std::chrono::microseconds(200);  // from a frame's readiness to the transfer thread's look
  std::map<uint64_t, MessageFault> message_faults;
  std::multimap<Duration, Happening> happenings;  // from the start
};

// Gateways, prefill and decode processes, their network and their clients on one thread with a virtual clock. The
// processes are the real cores on real ledgers and transfer workers; clock, network and arithmetic are simulated. The
// same config gives the same run. After each event everything that the event touched is checked (CHECK), and the oracle
// judges what it can see; run() ends at its first breach.
class World {
 public:
  // `interceptor` and what it refers to outlive the world.
  World(const WorldConfig& config, Interceptor& interceptor);

  // Gateways come first in the list of processes, then prefill nodes, then decode nodes.
  static constexpr ProcessId gateway(uint32_t index) { return ProcessId{index}; }

  void happen(const Happening& what);
  // Until nothing is under way and nobody waits. False: a breach, or still restless after `limit`.
  bool run(Duration limit);
  // Ends all faults, starts whatever is dead, and lets the clock run.
  bool settle(Duration limit);
  void pass(Duration time) { now_ += time; }  // REQUIRES: at rest
  // Nobody holds anything, all requests are answered: else a breach.
  void check_at_rest();
  void breach(std::string what) { oracle_.breach(std::move(what)); }  // found by whoever drives the world

  const Oracle& oracle() const { return oracle_; }
  Coverage coverage() const;
  uint64_t faults_met() const { return faults_met_ + network_.faults_met(); }
  TimePoint now() const { return now_; }
  std::string log_tail() const;  // the last events

 private:
  struct Process {
    ProcessId id{};
    Role role{};
    std::unique_ptr<SimulatedProcess> running;  // nullptr: dead
    FaultyTransport* transport = nullptr;       // owned by running
    TimePoint bulk_at = kNever;                 // the transfer thread's next look
    TimePoint hangs_until{};                    // the transfer thread
    std::multimap<TimePoint, TransferJob> late_jobs;
    std::deque<TransferEvent> answers;              // of the interceptor, due at once
    std::map<SendId, TransferId> sends;             // SendParts posted, PartsSent not yet back
    std::map<TransferId, uint32_t> open_transfers;  // OpenTransfer posted, TransferClosed not yet back
    std::optional<Duration> away;                   // it drains, leaves, and comes back after so long
  };

  void start(ProcessId id);
  SimulatedNodeConfig node_config(ProcessId id) const;
  void kill(Process& process, bool in_order);
  void leave_drained();
  Process& at(ProcessId id) { return processes_[static_cast<size_t>(id)]; }
  TimePoint next_event_of(const Process& process) const;
  TimePoint next_event() const;
  void step();
  void step(Process& process);
  void deliver(const SimulatedNetwork::Delivery& delivery);
  void turn_worker(Process& process);
  void answer(Process& process, const TransferEvent& event);
  void wake(Process& process, Duration within);
  void wake_workers();

  void happens(const ClientArrives& what);
  void happens(const ClientLeaves& what);
  void happens(const ProcessDies& what);
  void happens(const ProcessStarts& what);
  void happens(const ConnectionBreaks& what);
  void happens(const BulkBreaks& what);
  void happens(const BulkCorrupts& what);
  void happens(const BulkStalls& what);
  void happens(const BulkResumes& what);
  void happens(const TransferHangs& what);
  void happens(const StepStalls& what);
  void happens(const NodeDrains& what);

  void carry_out(Process& process);
  void effect(Process& process, SendMessage& effect);
  void effect(Process& process, ConnectPeer& effect);
  void effect(Process& process, TransferJob& effect);
  void effect(Process& process, StepPlan& effect);
  void effect(Process& process, StreamToken& effect);
  void effect(Process& process, StreamScores& effect);
  void effect(Process& process, StreamEnd& effect);
  void effect(Process& process, StreamError& effect);
  void post(Process& process, TransferJob job);
  void check_shared_blocks(const Process& process);
  void note_placement(Process& gateway, const SendMessage& sent);
  void note_message(const Process& gateway, PeerId node, const Message& heard);
  void note_lost_peer(const Process& process, PeerId peer, const char* by);
  void touch_disturbed();
  void log(std::string text);

  const WorldConfig config_;
  Interceptor& interceptor_;
  Random random_;
  TimePoint now_{std::chrono::hours(1)};
  SimulatedFabric fabric_;
  SimulatedNetwork network_;
  Oracle oracle_;
  Coverage coverage_;
  CreditWatch credits_;
  std::vector<Process> processes_;
  std::multimap<TimePoint, Happening> agenda_;
  std::map<RequestId, ProcessId> clients_;       // of which gateway
  std::set<std::pair<ProcessId, PeerId>> left_;  // who knew a node that left in order, and as whom
  std::deque<std::string> log_;
  uint64_t boots_ = 0, faults_met_ = 0;
};

}  // namespace spillway
