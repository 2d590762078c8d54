#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "common/clock.h"
#include "simulator/faults.h"
#include "simulator/random.h"
#include "transfer/control_channel.h"
#include "transfer/messages.h"

namespace spillway {

// The control channels of all processes in virtual time. Per connection and direction first in, first out, except where
// a planned fault says otherwise; every message takes the real codec. Load, PeerInfo and MayLeave have no repeat and
// suffer no fault of their own: over one ZeroMQ connection they are lost only with it.
class SimulatedNetwork {
 public:
  struct Delays {
    Duration message_min = std::chrono::microseconds(30), message_max = std::chrono::microseconds(400);
    Duration silence_max = std::chrono::milliseconds(900);  // until the loss of a peer is noticed
  };
  // Message n (of those that may suffer one, counted from 0) meets message_faults[n].
  SimulatedNetwork(uint64_t seed, const Delays& delays, std::map<uint64_t, MessageFault> message_faults);

  static std::string endpoint(ProcessId process);
  // A new incarnation that accepts at endpoint(process). REQUIRES: not running.
  void start(ProcessId process, const Hello& hello, TimePoint now);
  // `in_order`: what it sent before is heard first. REQUIRES: running.
  void stop(ProcessId process, TimePoint now, bool in_order);
  // Who knows it, and as whom.
  std::vector<std::pair<ProcessId, PeerId>> peers_of(ProcessId process) const;
  // Holds until this incarnation ends: connects again whenever both run.
  void connect(ProcessId from, const std::string& endpoint, TimePoint now);
  void break_connections(ProcessId a, ProcessId b, TimePoint now);
  void send(ProcessId from, PeerId to, const Message& message, TimePoint now);

  struct Delivery {
    ProcessId to{}, from{};
    ControlEvent event;
  };
  TimePoint next_event() const;  // kNever: nothing is under way
  // What is due at next_event(); nothing when it concerned nobody.
  std::optional<Delivery> advance();

  // Whom a handle of a running process means, also after that one is gone.
  std::optional<ProcessId> process_of(ProcessId owner, PeerId peer) const;
  // Since the last call: messages that never came or seconds late, and a Reserve or Failed that was held up, which may
  // turn a refusal before the first token into one after it.
  std::vector<Message> take_disturbed() { return std::exchange(disturbed_, {}); }
  void end_faults() { message_faults_.clear(); }
  uint64_t faults_met() const { return faults_met_; }

 private:
  struct Process {
    bool running = false;
    Hello hello;
    uint32_t peers = 0;
    std::set<ProcessId> wants;              // to connect to
    std::map<PeerId, uint64_t> connection;  // of this incarnation
  };
  struct End {
    ProcessId process{};
    PeerId peer{};        // what this end calls the other
    TimePoint up_at{};    // PeerUp comes
    TimePoint last_at{};  // the latest arrival, first in, first out
    bool closed = false;  // PeerGone came, or the process died
  };
  struct Connection {
    End ends[2];
    bool broken = false;
  };
  struct Gone {
    std::string reason;
  };
  struct Arrival {
    BootId sender{};
    Message sent;
    std::vector<std::byte> bytes;
  };
  struct Retry {
    ProcessId from{}, to{};
  };
  struct Pending {
    uint64_t connection = 0;
    int end = 0;  // the receiving one
    std::variant<PeerUp, Arrival, Gone, Retry> what;
  };

  Duration delay() { return random_.between(delays_.message_min, delays_.message_max); }
  void schedule(TimePoint at, Pending pending) { pending_.emplace(std::pair{at, order_++}, std::move(pending)); }
  void try_connect(ProcessId from, ProcessId to, TimePoint now);
  bool connected(ProcessId from, ProcessId to) const;
  void break_connection(uint64_t id, const std::string& reason, TimePoint now, bool in_order = false);
  std::optional<MessageFault> fault_of(const Message& message);
  void disturb(const Message& message) { disturbed_.push_back(message); }

  Random random_;
  const Delays delays_;
  std::map<uint64_t, MessageFault> message_faults_;
  std::map<ProcessId, Process> processes_;
  std::map<uint64_t, Connection> connections_;
  std::map<std::pair<TimePoint, uint64_t>, Pending> pending_;
  std::vector<Message> disturbed_;
  uint64_t order_ = 0, messages_ = 0, faults_met_ = 0;
};

}  // namespace spillway
