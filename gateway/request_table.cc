#include "gateway/request_table.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "common/check.h"
#include "kv/block.h"

namespace spillway {

namespace {

constexpr uint64_t kOutputWeight = 2;
constexpr double kNewWeight = 1.0 / 8;  // of the last request in the mean output

constexpr size_t kBlockTokens = KvLayout{}.block_tokens;

// Tokens of it that are computed, as far as known beforehand: of one that follows another the last, open block.
uint64_t prompt_cost(const GenerateRequest& work) {
  return work.leader ? (work.prompt.size() - 1) % kBlockTokens + 1 : work.prompt.size();
}

QueuedRequest as_queued(const GatewayRequest& request) {
  return {request.work.request, tenant_id(request.work.tenant), request.cost, request.work.priority};
}

}  // namespace

TenantId tenant_id(const TenantKey& tenant) {
  uint64_t id = 0;
  std::memcpy(&id, tenant.bytes.data(), sizeof id);
  return TenantId{id};
}

GatewayRequest* RequestTable::find(RequestId request) {
  const auto entry = requests_.find(request);
  return entry == requests_.end() ? nullptr : &entry->second;
}

GatewayRequest& RequestTable::insert(GatewayRequest request) {
  CHECK(!request.running);
  const RequestId id = request.work.request;
  const double output = std::min<double>(output_expected_, request.work.output_tokens_max);
  request.cost = prompt_cost(request.work) + kOutputWeight * static_cast<uint64_t>(output);
  const auto [entry, is_new] = requests_.emplace(id, std::move(request));
  CHECK(is_new);
  const std::optional<RequestId>& leader = entry->second.work.leader;
  entry->second.held = leader && requests_.contains(*leader) && !requests_.at(*leader).led;
  if (entry->second.held) {
    ++held_;
  } else {
    queue_.push(as_queued(entry->second));
  }
  return entry->second;
}

GatewayRequest* RequestTable::queue_head() {
  const std::optional<RequestId> head = queue_.head();
  return head ? &requests_.at(*head) : nullptr;
}

GatewayRequest& RequestTable::least_deserving(const GatewayRequest& newcomer) {
  return requests_.at(queue_.least_deserving(tenant_id(newcomer.work.tenant)));
}

GatewayRequest& RequestTable::last_held_of_most(const GatewayRequest& newcomer) {
  std::map<TenantId, uint32_t> counts;
  for (const auto& [id, request] : requests_) counts[tenant_id(request.work.tenant)] += request.held ? 1 : 0;
  TenantId most = tenant_id(newcomer.work.tenant);
  for (const auto& [tenant, count] : counts)
    if (count > counts[most]) most = tenant;
  const auto last = std::find_if(requests_.rbegin(), requests_.rend(), [&](const auto& entry) {
    return entry.second.held && tenant_id(entry.second.work.tenant) == most;
  });
  return last->second;
}

RunningAttempt& RequestTable::start_head(const RunningAttempt& attempt) {
  CHECK(queue_.head() == attempt.attempt.request);
  queue_.pop();
  return requests_.at(attempt.attempt.request).running.emplace(attempt);
}

void RequestTable::requeue(GatewayRequest& request) {
  CHECK(request.running);
  request.running.reset();
  queue_.requeue(as_queued(request));
}

void RequestTable::release(RequestId leader, const std::optional<AttemptNodes>& beside, TimePoint queue_until) {
  if (const auto entry = requests_.find(leader); entry != requests_.end()) entry->second.led = true;
  for (auto& [id, request] : requests_) {
    if (!request.held || request.work.leader != leader) continue;
    request.held = false;
    request.beside = beside;
    request.queue_until = queue_until;
    --held_;
    queue_.push_first(as_queued(request));  // it came with its leader, whose turn it was
  }
}

void RequestTable::erase(GatewayRequest& request, TimePoint followers_until) {
  const RequestId id = request.work.request;
  if (request.held) {
    --held_;
  } else if (request.running) {
    const uint32_t output = request.waterfall.output_tokens;
    queue_.settle(tenant_id(request.work.tenant), request.cost, prompt_cost(request.work) + kOutputWeight * output);
    if (output > 0) output_expected_ += kNewWeight * (output - output_expected_);
  } else {
    queue_.erase(id);
  }
  if (!request.led) {
    const auto& running = request.running;
    release(id, running ? std::optional(running->nodes()) : std::nullopt, followers_until);
  }
  CHECK(requests_.erase(id) == 1);
}

TimePoint RequestTable::next_deadline() const {
  TimePoint earliest = kNever;
  for (const auto& [id, request] : requests_) {
    earliest = std::min(earliest, request.running ? request.running->progress_by : request.queue_until);
  }
  return earliest;
}

void RequestTable::check_conservation() const {
  size_t waiting = 0, held = 0;
  for (const auto& [id, request] : requests_) {
    CHECK(request.work.request == id);
    waiting += request.running ? 0 : 1;
    held += request.held ? 1 : 0;
    CHECK(!request.held || (!request.running && requests_.contains(*request.work.leader)));
    if (!request.running) continue;
    CHECK(request.running->attempt.request == id && request.attempts > 0);
    CHECK(request.running->prefill.open || request.running->decode.open);
    CHECK(!request.running->colocated() || !request.running->prefill.open);
  }
  CHECK(waiting == queued() && held == held_);
  queue_.check_conservation();
}

}  // namespace spillway
