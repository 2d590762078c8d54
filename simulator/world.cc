#include "simulator/world.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/check.h"
#include "simulator/attempt_of.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;

constexpr size_t kLogLines = 80;
constexpr uint64_t kEventsMax = 1'000'000;  // of one run()

}  // namespace

World::World(const WorldConfig& config, Interceptor& interceptor)
    : config_(config),
      interceptor_(interceptor),
      random_(config.seed),
      fabric_(config.seed, {}),
      network_(config.seed, config.delays, config.message_faults),
      oracle_(config.node.model) {
  CHECK(config.gateways > 0);
  processes_.resize(config.gateways + config.prefill + config.decode);
  for (uint32_t index = 0; index < processes_.size(); ++index) {
    processes_[index].id = ProcessId{index};
    processes_[index].role = index < config.gateways                    ? Role::kGateway
                             : index < config.gateways + config.prefill ? Role::kPrefill
                                                                        : Role::kDecode;
  }
  for (const Process& process : processes_)
    if (!config.absent.contains(process.id)) start(process.id);
  for (const auto& [after, what] : config.happenings) agenda_.emplace(now_ + after, what);
}

void World::start(ProcessId id) {
  Process& process = at(id);
  CHECK(process.running == nullptr);
  Hello hello;
  hello.role = process.role;
  hello.boot = BootId{mix64(config_.seed) + ++boots_};
  hello.name = fmt::format("{} {}", role_name(process.role), static_cast<uint32_t>(id));
  if (process.role != Role::kPrefill) hello.control_endpoint = SimulatedNetwork::endpoint(id);
  if (process.role == Role::kGateway) {
    process.running = make_simulated_gateway(config_.gateway, hello.boot);
  } else {
    auto transport = std::make_unique<FaultyTransport>(fabric_.make_member(), random_.next());
    process.transport = transport.get();
    hello.bulk_endpoint.assign(transport->endpoint().begin(), transport->endpoint().end());
    const SimulatedNodeConfig node = node_config(id);
    hello.encoding = node.encoding();
    hello.blocks_total = config_.node.slots;
    hello.sequences_max = config_.node.limits.sequences_max;
    hello.max_model_len = config_.node.max_model_len;
    hello.block_tokens = config_.node.model.layout.block_tokens;
    hello.step_tokens = config_.node.limits.tokens_max;
    hello.growth_margin = process.role == Role::kDecode ? config_.node.growth_margin : 0;
    hello.colocates = process.role == Role::kDecode && config_.node.colocates;
    process.running = process.role == Role::kPrefill ? make_simulated_prefill(node, std::move(transport))
                                                     : make_simulated_decode(node, hello.boot, std::move(transport));
  }
  network_.start(id, hello, now_);
  for (uint32_t index = 0; process.role != Role::kGateway && index < config_.gateways; ++index)
    network_.connect(id, SimulatedNetwork::endpoint(gateway(index)), now_);
  log(fmt::format("{} starts", hello.name));
}

SimulatedNodeConfig World::node_config(ProcessId id) const {
  SimulatedNodeConfig node = config_.node;
  if (const auto own = config_.numerics.find(id); own != config_.numerics.end()) node.numerics = own->second;
  return node;
}

void World::kill(Process& process, bool in_order) {
  network_.stop(process.id, now_, in_order);
  credits_.forget(process.id);
  Process dead;
  dead.id = process.id;
  dead.role = process.role;
  process = std::move(dead);
  coverage_.forget(process.id);
  wake_workers();
}

TimePoint World::next_event_of(const Process& process) const {
  if (process.running == nullptr) return kNever;
  TimePoint earliest = interceptor_.expires(process.id) ? process.running->next_deadline() : kNever;
  if (NodeParts* const parts = process.running->parts()) {
    earliest = std::min({earliest, process.bulk_at, parts->executor.next_event()});
    if (!process.late_jobs.empty()) earliest = std::min(earliest, process.late_jobs.begin()->first);
  }
  return earliest;
}

TimePoint World::next_event() const {
  TimePoint earliest = network_.next_event();
  if (!agenda_.empty()) earliest = std::min(earliest, agenda_.begin()->first);
  for (const Process& process : processes_) earliest = std::min(earliest, next_event_of(process));
  return earliest;
}

void World::step() {
  const TimePoint due = next_event();
  now_ = std::max(now_, due);
  if (!agenda_.empty() && agenda_.begin()->first <= now_) {
    const Happening what = std::move(agenda_.extract(agenda_.begin()).mapped());
    happen(what);
  } else if (network_.next_event() <= now_) {
    if (const auto delivery = network_.advance()) deliver(*delivery);
  } else {
    step(*std::ranges::find_if(processes_, [&](const Process& one) { return next_event_of(one) <= now_; }));
  }
  leave_drained();
  touch_disturbed();
}

// Nobody's request may suffer from that: whoever loses sight of it is no sign of a fault.
void World::leave_drained() {
  for (Process& process : processes_) {
    if (!process.away || !process.running->drained()) continue;
    log(fmt::format("process {} leaves", static_cast<uint32_t>(process.id)));
    coverage_.left();
    agenda_.emplace(now_ + *process.away, ProcessStarts{process.id});
    for (const auto& known : network_.peers_of(process.id)) left_.insert(known);
    kill(process, true);
  }
}

void World::step(Process& process) {
  SimulatedProcess& running = *process.running;
  NodeParts* const parts = running.parts();
  if (parts != nullptr && parts->executor.next_event() <= now_) {
    const ComputeEvent event = parts->executor.advance();
    interceptor_.computed(process.id, event, now_);
    running.on_compute(event, now_);
  } else if (!process.late_jobs.empty() && process.late_jobs.begin()->first <= now_) {
    post(process, std::move(process.late_jobs.extract(process.late_jobs.begin()).mapped()));
  } else if (parts != nullptr && process.bulk_at <= now_) {
    turn_worker(process);
  } else {
    log(fmt::format("process {} meets a deadline", static_cast<uint32_t>(process.id)));
    running.on_deadline(now_);
  }
  carry_out(process);
}

void World::turn_worker(Process& process) {
  process.bulk_at = kNever;
  std::vector<TransferEvent> events;
  TransferWorker& worker = process.running->parts()->worker;
  if (worker.turn(events) > 0) wake_workers();
  if (worker.counts().refused_doubled > 0) oracle_.breach("a frame brought parts that had come before");
  for (TransferEvent& event : events) {
    const auto* const landed = std::get_if<PartsLanded>(&event);
    if (landed != nullptr && !landed->intact) {
      log(fmt::format("process {} got a corrupt frame", static_cast<uint32_t>(process.id)));
      oracle_.touch(landed->transfer, "a corrupt frame");
    }
    std::vector<TransferEvent> passed;
    interceptor_.answer(process.id, std::move(event), now_, passed);
    for (const TransferEvent& one : passed) answer(process, one);
  }
}

void World::answer(Process& process, const TransferEvent& event) {
  if (const auto* const lost = std::get_if<BulkLost>(&event)) {
    note_lost_peer(process, lost->peer, "the loss of a bulk link");
  } else if (const auto* const sent = std::get_if<PartsSent>(&event)) {
    const auto its = process.sends.extract(sent->send);  // empty: a doubled answer
    if (!its.empty() && sent->status == TransferStatus::kPeerLost)
      oracle_.touch(its.mapped(), "the loss of a bulk link");
  } else if (const auto* const closed = std::get_if<TransferClosed>(&event)) {
    process.open_transfers.erase(closed->transfer);
  }
  process.running->on_transfer(event, now_);
}

// The transfer thread looks within so long, if it does not hang.
void World::wake(Process& process, Duration within) {
  const TimePoint at = now_ + random_.between(Duration(1), within);
  process.bulk_at = std::min(process.bulk_at, std::max(at, process.hangs_until));
}

void World::wake_workers() {
  for (Process& process : processes_) {
    if (process.running != nullptr && process.running->parts() != nullptr) wake(process, config_.bulk_delay_max);
  }
}

void World::deliver(const SimulatedNetwork::Delivery& delivery) {
  Process& process = at(delivery.to);
  const auto to = static_cast<uint32_t>(delivery.to), from = static_cast<uint32_t>(delivery.from);
  if (const auto* const message = std::get_if<PeerMessage>(&delivery.event)) {
    const Attempt* const attempt = attempt_of(message->message);
    log(fmt::format("{} -> {} {} {}", from, to, message_name(message->message),
                    attempt == nullptr ? ""
                                       : fmt::format("request {} epoch {}", attempt->request.counter,
                                                     static_cast<uint32_t>(attempt->epoch))));
    coverage_.delivered(delivery.to, process.role, message->message);
    if (std::holds_alternative<Cancel>(message->message)) oracle_.cancelled(delivery.to, *attempt, now_);
    if (process.role == Role::kGateway) note_message(process, message->peer, message->message);
    std::vector<Message> passed;
    interceptor_.deliver(delivery.to, delivery.from, message->message, passed);
    for (Message& one : passed) {
      process.running->on_control(PeerMessage{message->peer, std::move(one)}, now_);
      carry_out(process);
    }
    return;
  }
  if (const auto* const gone = std::get_if<PeerGone>(&delivery.event)) {
    log(fmt::format("{} sees that {} is gone", to, from));
    if (!left_.erase({process.id, gone->peer})) note_lost_peer(process, gone->peer, "the loss of a peer");
    if (process.role == Role::kGateway) credits_.forget(process.id, gone->peer);
  } else {
    log(fmt::format("{} sees {}", to, from));
  }
  process.running->on_control(delivery.event, now_);
  carry_out(process);
}

// Both know each other no more: whatever ran on both may fail; with a gateway whatever of its own runs on the node.
void World::note_lost_peer(const Process& process, PeerId peer, const char* by) {
  const ProcessId other = network_.process_of(process.id, peer).value();
  std::vector<ProcessId> nodes;
  std::optional<ProcessId> gateway;
  for (const ProcessId id : {process.id, other}) {
    if (at(id).role == Role::kGateway) {
      gateway = id;
    } else {
      nodes.push_back(id);
    }
  }
  oracle_.touch_on(nodes, gateway, by);
}

void World::note_message(const Process& gateway, PeerId node, const Message& heard) {
  if (const auto* const load = std::get_if<Load>(&heard)) {
    credits_.told(gateway.id, node, *load);
  } else if (const Attempt* const attempt = attempt_of(heard)) {
    credits_.over(gateway.id, node, *attempt);  // it speaks of it, so it has counted it, or it refuses
  }
}

void World::touch_disturbed() {
  for (const Message& message : network_.take_disturbed()) {
    if (const Attempt* const attempt = attempt_of(message)) {
      oracle_.touch(*attempt, fmt::format("the loss or delay of {}", message_name(message)));
    }
  }
}

bool World::run(Duration limit) {
  const TimePoint end = now_ + limit;
  for (uint64_t events = 0; !oracle_.first_breach(); ++events) {
    const TimePoint due = next_event();
    if (due == kNever) return true;
    if (due > end || events == kEventsMax) {
      oracle_.breach(fmt::format("not at rest after {:.0f} s and {} events; unanswered:{}",
                                 seconds(now_ - (end - limit)), events, oracle_.unanswered()));
      break;
    }
    step();
  }
  return false;
}

bool World::settle(Duration limit) {
  network_.end_faults();
  for (Process& process : processes_) {
    if (process.running == nullptr) {
      start(process.id);
    } else if (process.running->parts() != nullptr) {
      process.transport->corrupt_next(false);
      process.hangs_until = now_;
      wake(process, config_.bulk_delay_max);
    }
  }
  return run(limit);
}

void World::check_at_rest() {
  if (!oracle_.all_answered()) oracle_.breach(fmt::format("never answered: requests{}", oracle_.unanswered()));
  for (Process& process : processes_) {
    if (process.running == nullptr) continue;  // it never came, or has left
    std::string left = process.running->leftovers();
    if (process.away) left += " the wish to leave";
    if (!process.open_transfers.empty()) left += fmt::format(" {} open transfers", process.open_transfers.size());
    if (!left.empty()) oracle_.breach(fmt::format("process {} still holds{}", static_cast<uint32_t>(process.id), left));
  }
}

Coverage World::coverage() const {
  Coverage all = coverage_;
  all.wants(credits_.wants_made(), credits_.wants_met());
  return all;
}

void World::log(std::string text) {
  log_.push_back(fmt::format("{:12.6f} {}", seconds(now_.time_since_epoch() - 1h), text));
  if (log_.size() > kLogLines) log_.pop_front();
}

std::string World::log_tail() const { return fmt::format("{}\n", fmt::join(log_, "\n")); }

}  // namespace spillway
