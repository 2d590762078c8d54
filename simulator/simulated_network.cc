#include "simulator/simulated_network.h"

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "transfer/message_codec.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;

Message through_codec(BootId sender, const Message& message, std::span<const std::byte> bytes) {
  Result<Envelope> envelope = decode_message(bytes);
  CHECK(envelope && envelope->sender == sender && envelope->message == message);
  return std::move(envelope->message);
}

}  // namespace

SimulatedNetwork::SimulatedNetwork(uint64_t seed, const Delays& delays, std::map<uint64_t, MessageFault> message_faults)
    : random_(seed), delays_(delays), message_faults_(std::move(message_faults)) {}

std::string SimulatedNetwork::endpoint(ProcessId process) {
  return "sim:" + std::to_string(static_cast<uint32_t>(process));
}

void SimulatedNetwork::start(ProcessId process, const Hello& hello, TimePoint now) {
  Process& starting = processes_[process];
  CHECK(!starting.running);
  starting = Process{};
  starting.running = true;
  starting.hello = hello;
  for (const auto& [other, state] : processes_) {
    if (state.running && state.wants.contains(process)) try_connect(other, process, now);
  }
}

void SimulatedNetwork::stop(ProcessId process, TimePoint now, bool in_order) {
  Process& stopping = processes_.at(process);
  CHECK(stopping.running);
  stopping.running = false;
  stopping.wants.clear();
  for (auto& [id, connection] : connections_) {
    for (int end = 0; end < 2; ++end) {
      if (connection.ends[end].process != process || connection.ends[end].closed) continue;
      connection.ends[end].closed = true;
      break_connection(id, in_order ? "hung up" : "silent", now, in_order);
    }
  }
}

void SimulatedNetwork::connect(ProcessId from, const std::string& endpoint, TimePoint now) {
  for (const auto& [to, state] : processes_) {
    if (SimulatedNetwork::endpoint(to) != endpoint || !processes_.at(from).wants.insert(to).second) continue;
    try_connect(from, to, now);
  }
}

bool SimulatedNetwork::connected(ProcessId from, ProcessId to) const {
  return std::ranges::any_of(connections_, [&](const auto& entry) {
    const Connection& one = entry.second;
    return !one.broken && one.ends[0].process == from && one.ends[1].process == to;
  });
}

void SimulatedNetwork::try_connect(ProcessId from, ProcessId to, TimePoint now) {
  Process& connecting = processes_.at(from);
  Process& accepting = processes_.at(to);
  if (!connecting.running || !accepting.running || !connecting.wants.contains(to) || connected(from, to)) return;
  const uint64_t id = order_++;
  Connection& connection = connections_[id];
  Process* const sides[2] = {&connecting, &accepting};
  for (int end = 0; end < 2; ++end) {
    End& one = connection.ends[end];
    one.process = end == 0 ? from : to;
    one.peer = PeerId{++sides[end]->peers};
    one.up_at = one.last_at = now + 2 * delay();
    sides[end]->connection[one.peer] = id;
    const Hello& hello = sides[1 - end]->hello;
    const Message said = through_codec(hello.boot, hello, encode_message(hello.boot, hello));
    schedule(one.up_at, {id, end, PeerUp{one.peer, std::get<Hello>(said)}});
  }
}

void SimulatedNetwork::break_connections(ProcessId a, ProcessId b, TimePoint now) {
  for (auto& [id, connection] : connections_) {
    const ProcessId first = connection.ends[0].process, second = connection.ends[1].process;
    if ((first == a && second == b) || (first == b && second == a)) break_connection(id, "connection lost", now);
  }
}

// Each end notices by itself; until then it hears what was under way, and what it sends is lost.
void SimulatedNetwork::break_connection(uint64_t id, const std::string& reason, TimePoint now, bool in_order) {
  Connection& connection = connections_.at(id);
  if (connection.broken) return;
  connection.broken = true;
  TimePoint noticed = now;
  for (int end = 0; end < 2; ++end) {
    if (connection.ends[end].closed) continue;
    const TimePoint heard = in_order ? connection.ends[end].last_at : connection.ends[end].up_at;
    const TimePoint at = std::max(now + random_.between(Duration(1us), delays_.silence_max), heard);
    schedule(at, {id, end, Gone{reason}});
    noticed = std::max(noticed, at);
  }
  schedule(noticed + delay(), {0, 0, Retry{connection.ends[0].process, connection.ends[1].process}});
}

std::optional<MessageFault> SimulatedNetwork::fault_of(const Message& message) {
  const bool spared = std::holds_alternative<Load>(message) || std::holds_alternative<PeerInfo>(message) ||
                      std::holds_alternative<MayLeave>(message);
  if (spared) return std::nullopt;
  const auto planned = message_faults_.find(messages_++);
  if (planned == message_faults_.end()) return std::nullopt;
  ++faults_met_;
  return planned->second;
}

void SimulatedNetwork::send(ProcessId from, PeerId to, const Message& message, TimePoint now) {
  const Process& sender = processes_.at(from);
  const uint64_t id = sender.connection.at(to);
  Connection& connection = connections_.at(id);
  const int end = connection.ends[0].process == from && connection.ends[0].peer == to ? 1 : 0;
  if (connection.broken) {
    disturb(message);
    return;
  }
  End& receiver = connection.ends[end];
  const Arrival arrival{sender.hello.boot, message, encode_message(sender.hello.boot, message)};
  const TimePoint soon = std::max(now + delay(), receiver.up_at);
  const auto in_order = [&] {
    receiver.last_at = std::max(receiver.last_at, soon);
    schedule(receiver.last_at, {id, end, arrival});
  };
  const std::optional<MessageFault> fault = fault_of(message);
  if (!fault) {
    in_order();
    return;
  }
  switch (*fault) {
    case MessageFault::kLose: disturb(message); break;
    case MessageFault::kDuplicate:
      in_order();
      schedule(soon + random_.between(Duration(0), Duration(30ms)), {id, end, arrival});
      break;
    case MessageFault::kLateCopy:
      in_order();
      schedule(soon + random_.between(Duration(1s), Duration(20s)), {id, end, arrival});
      break;
    case MessageFault::kReorder:
      if (std::holds_alternative<Reserve>(message) || std::holds_alternative<Failed>(message)) disturb(message);
      schedule(soon + random_.between(Duration(0), Duration(20ms)), {id, end, arrival});
      break;
    case MessageFault::kLate:
      disturb(message);  // as good as
      schedule(soon + random_.between(Duration(1s), Duration(20s)), {id, end, arrival});
      break;
  }
}

TimePoint SimulatedNetwork::next_event() const { return pending_.empty() ? kNever : pending_.begin()->first.first; }

std::optional<SimulatedNetwork::Delivery> SimulatedNetwork::advance() {
  CHECK(!pending_.empty());
  const auto node = pending_.extract(pending_.begin());
  const TimePoint now = node.key().first;
  const Pending& pending = node.mapped();
  if (const auto* const retry = std::get_if<Retry>(&pending.what)) {
    try_connect(retry->from, retry->to, now);
    return std::nullopt;
  }
  End& end = connections_.at(pending.connection).ends[pending.end];
  const End& other = connections_.at(pending.connection).ends[1 - pending.end];
  Delivery delivery{end.process, other.process, {}};
  if (const auto* const arrival = std::get_if<Arrival>(&pending.what)) {
    if (end.closed) {
      disturb(arrival->sent);
      return std::nullopt;
    }
    delivery.event = PeerMessage{end.peer, through_codec(arrival->sender, arrival->sent, arrival->bytes)};
    return delivery;
  }
  if (end.closed) return std::nullopt;
  if (const auto* const up = std::get_if<PeerUp>(&pending.what)) {
    delivery.event = *up;
  } else {
    end.closed = true;
    delivery.event = PeerGone{end.peer, std::get<Gone>(pending.what).reason};
  }
  return delivery;
}

std::vector<std::pair<ProcessId, PeerId>> SimulatedNetwork::peers_of(ProcessId process) const {
  std::vector<std::pair<ProcessId, PeerId>> found;
  for (const auto& [id, connection] : connections_) {
    for (int end = 0; end < 2; ++end) {
      const End& other = connection.ends[1 - end];
      if (connection.ends[end].process == process && !connection.broken) found.emplace_back(other.process, other.peer);
    }
  }
  return found;
}

std::optional<ProcessId> SimulatedNetwork::process_of(ProcessId owner, PeerId peer) const {
  const Process& process = processes_.at(owner);
  const auto id = process.connection.find(peer);
  if (id == process.connection.end()) return std::nullopt;
  const Connection& connection = connections_.at(id->second);
  const bool first = connection.ends[0].process == owner && connection.ends[0].peer == peer;
  return connection.ends[first ? 1 : 0].process;
}

}  // namespace spillway
