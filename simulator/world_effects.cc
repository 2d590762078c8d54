// What happens to the world's processes, and what they do to it.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/check.h"
#include "simulator/attempt_of.h"
#include "simulator/world.h"

namespace spillway {
namespace {

constexpr Duration kClientRetry = std::chrono::milliseconds(20);

}  // namespace

void World::happen(const Happening& what) {
  std::visit([this](const auto& one) { happens(one); }, what);
}

void World::happens(const ClientArrives& what) {
  Process& gateway = at(World::gateway(what.gateway));
  if (gateway.running == nullptr) {  // connection refused: it tries again
    agenda_.emplace(now_ + kClientRetry, what);
    return;
  }
  log(fmt::format("request {} arrives, {} prompt tokens", what.work.request.counter, what.work.prompt.size()));
  oracle_.arrived(what.work, what.too_long, gateway.id);
  clients_.emplace(what.work.request, gateway.id);
  gateway.running->on_client(RequestArrived{what.work}, now_);
  carry_out(gateway);
}

void World::happens(const ClientLeaves& what) {
  log(fmt::format("the client of request {} leaves", what.request.counter));
  const auto client = clients_.find(what.request);
  if (client == clients_.end() || at(client->second).running == nullptr) return;
  Process& gateway = at(client->second);
  ++faults_met_;
  oracle_.left(what.request);
  gateway.running->on_client(ClientGone{what.request}, now_);
  carry_out(gateway);
}

void World::happens(const ProcessDies& what) {
  Process& process = at(what.process);
  if (process.running == nullptr) return;
  ++faults_met_;
  log(fmt::format("process {} dies", static_cast<uint32_t>(what.process)));
  if (process.role == Role::kGateway) {
    oracle_.gateway_died(process.id);
  } else {
    oracle_.touch_on({process.id}, std::nullopt, "the death of a node");
  }
  kill(process, false);
}

void World::happens(const ProcessStarts& what) {
  if (at(what.process).running == nullptr) start(what.process);
}

void World::happens(const ConnectionBreaks& what) {
  ++faults_met_;
  log(fmt::format("the connection of {} and {} breaks", static_cast<uint32_t>(what.a), static_cast<uint32_t>(what.b)));
  network_.break_connections(what.a, what.b, now_);
}

void World::happens(const BulkBreaks& what) {
  const Process& process = at(what.process);
  if (process.running == nullptr) return;
  ++faults_met_;
  log(fmt::format("the bulk links of {} break", static_cast<uint32_t>(what.process)));
  fabric_.break_links(process.transport->endpoint());
  wake_workers();
}

void World::happens(const BulkCorrupts& what) {
  const Process& process = at(what.process);
  if (process.running == nullptr) return;
  ++faults_met_;
  log(fmt::format("the next frame of {} will be corrupt", static_cast<uint32_t>(what.process)));
  process.transport->corrupt_next(true);
}

void World::happens(const BulkStalls& what) {
  const Process& process = at(what.process);
  if (process.running == nullptr) return;
  ++faults_met_;
  log(fmt::format("a bulk link of {} stalls", static_cast<uint32_t>(what.process)));
  process.transport->stall_next();
  agenda_.emplace(now_ + what.duration, BulkResumes{what.process});
}

void World::happens(const BulkResumes& what) {
  const Process& process = at(what.process);
  if (process.running == nullptr) return;
  process.transport->resume();
  wake_workers();
}

void World::happens(const TransferHangs& what) {
  Process& process = at(what.process);
  if (process.running == nullptr) return;
  ++faults_met_;
  log(fmt::format("the transfer thread of {} hangs", static_cast<uint32_t>(what.process)));
  oracle_.touch_on({what.process}, std::nullopt, "a transfer thread that hangs");
  process.hangs_until = now_ + what.duration;
  if (process.bulk_at != kNever) process.bulk_at = std::max(process.bulk_at, process.hangs_until);
}

// No request may suffer: the loop keeps all leases, and the stall ends before anyone's patience.
void World::happens(const StepStalls& what) {
  const Process& process = at(what.process);
  if (process.running == nullptr) return;
  log(fmt::format("the compute thread of {} stalls", static_cast<uint32_t>(what.process)));
  process.running->parts()->executor.stall(now_ + what.duration);
}

void World::happens(const NodeDrains& what) {
  Process& process = at(what.process);
  if (process.running == nullptr || process.away) return;
  log(fmt::format("process {} is asked to leave", static_cast<uint32_t>(what.process)));
  process.away = what.away;
  process.running->on_drain(now_);
  carry_out(process);
}

void World::carry_out(Process& process) {
  while (true) {
    process.running->check_conservation();
    check_shared_blocks(process);
    for (ProcessEffect& one : process.running->take_effects()) {
      std::visit([&](auto& asked) { effect(process, asked); }, one);
    }
    if (process.answers.empty()) return;
    const TransferEvent event = process.answers.front();
    process.answers.pop_front();
    answer(process, event);
  }
}

// Arithmetic is the same in all classes here, so no token would tell.
void World::check_shared_blocks(const Process& process) {
  const NodeParts* const parts = process.running->parts();
  if (parts == nullptr) return;
  for (uint32_t slot = 0; slot < config_.node.slots; ++slot) {
    const NumericsClass computed = parts->executor.computed_in(SlotId{slot});
    if (!parts->cache.pool().is_cached(SlotId{slot}) || computed == parts->cache.config().encoding.numerics) continue;
    oracle_.breach(fmt::format("process {} shares a block of numerics class {}", static_cast<uint32_t>(process.id),
                               static_cast<uint32_t>(computed)));
  }
}

void World::effect(Process& process, SendMessage& effect) {
  coverage_.sent(process.id, process.role, effect.message);
  if (config_.gateways > 1 && !config_.node.refuses_within_shares()) coverage_.between_gateways(effect.message);
  oracle_.said(process.id, effect.message, now_);
  if (process.role == Role::kGateway) note_placement(process, effect);
  network_.send(process.id, effect.to, effect.message, now_);
}

void World::note_placement(Process& gateway, const SendMessage& sent) {
  if (const auto* const want = std::get_if<Want>(&sent.message)) return credits_.wanted(gateway.id, sent.to, *want);
  if (std::holds_alternative<Cancel>(sent.message)) credits_.over(gateway.id, sent.to, *attempt_of(sent.message));
  const auto* const prefill = std::get_if<Prefill>(&sent.message);
  const auto* const reserve = std::get_if<Reserve>(&sent.message);
  if (prefill == nullptr && reserve == nullptr) return;
  const Work& work = prefill != nullptr ? prefill->work : reserve->work;
  const auto prompt_tokens = static_cast<uint32_t>(work.prompt.size());
  const uint64_t tokens = prefill != nullptr
                              ? prompt_tokens
                              : tokens_at_first(prompt_tokens, work.output_tokens_max, config_.node.growth_margin);
  const Attempt& attempt = work.attempt;
  const uint32_t blocks = config_.node.model.layout.blocks_for(static_cast<uint32_t>(tokens));
  if (auto wrong = credits_.placed(gateway.id, sent.to, attempt, blocks)) oracle_.breach(std::move(*wrong));
  const ProcessId node = network_.process_of(gateway.id, sent.to).value();
  oracle_.placed(attempt, node);
  if (at(node).hangs_until > now_) oracle_.touch(attempt, "a transfer thread that hangs");
}

void World::effect(Process& process, ConnectPeer& effect) { network_.connect(process.id, effect.endpoint, now_); }

void World::effect(Process& process, TransferJob& effect) {
  if (const auto* const open = std::get_if<OpenTransfer>(&effect)) {
    ++process.open_transfers[open->transfer];
    const ProcessId from = network_.process_of(process.id, open->from).value();
    process.running->parts()->executor.receives(open->slots, node_config(from).numerics);
  }
  std::vector<Interceptor::Job> passed;
  std::vector<TransferEvent> answers;
  interceptor_.job(process.id, std::move(effect), passed, answers);
  process.answers.insert(process.answers.end(), answers.begin(), answers.end());
  for (Interceptor::Job& one : passed) {
    if (one.delay > Duration{0}) {
      process.late_jobs.emplace(now_ + one.delay, std::move(one.job));
    } else {
      post(process, std::move(one.job));
    }
  }
}

void World::post(Process& process, TransferJob job) {
  if (const auto* const send = std::get_if<SendParts>(&job)) {
    oracle_.sent_parts(*send);
    process.sends[send->send] = send->transfer;
  }
  process.running->parts()->worker.submit(std::move(job));
  wake(process, config_.bulk_delay_max / 8);
}

void World::effect(Process& process, StepPlan& effect) {
  interceptor_.plan(process.id, effect);
  process.running->parts()->executor.start(std::move(effect), now_);
}

void World::effect(Process&, StreamToken& effect) { oracle_.streamed(effect); }

void World::effect(Process&, StreamScores&) {}  // no request of the simulation asks for them

void World::effect(Process& process, StreamEnd& effect) {
  credits_.over(process.id, effect.request);
  oracle_.ended(effect);
}

void World::effect(Process& process, StreamError& effect) {
  credits_.over(process.id, effect.request);
  log(fmt::format("request {} fails: {}", effect.request.counter, effect.error.detail));
  oracle_.failed(effect);
}

}  // namespace spillway
