#include "gateway/request_table.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

TokenOrder::Put TokenOrder::put(const Token& token, uint32_t ahead_max) {
  if (token.index < next_index_) return Put::kDoubled;
  if (token.index - next_index_ > ahead_max) return Put::kOverflow;
  return ahead_.emplace(token.index, token).second ? Put::kTaken : Put::kDoubled;
}

std::optional<Token> TokenOrder::next() {
  const auto first = ahead_.begin();
  if (first == ahead_.end() || first->first != next_index_) return std::nullopt;
  std::optional<Token> token = std::move(first->second);
  ahead_.erase(first);
  ++next_index_;
  return token;
}

GatewayRequest* RequestTable::find(RequestId request) {
  const auto entry = requests_.find(request);
  return entry == requests_.end() ? nullptr : &entry->second;
}

GatewayRequest& RequestTable::insert(GatewayRequest request) {
  CHECK(!request.running);
  const RequestId id = request.work.request;
  const auto [entry, is_new] = requests_.emplace(id, std::move(request));
  CHECK(is_new);
  const std::optional<RequestId>& leader = entry->second.work.leader;
  entry->second.held = leader && requests_.contains(*leader) && !requests_.at(*leader).led;
  if (entry->second.held) {
    ++held_;
  } else {
    queue_.push_back(id);
  }
  return entry->second;
}

GatewayRequest* RequestTable::queue_head() { return queue_.empty() ? nullptr : &requests_.at(queue_.front()); }

RunningAttempt& RequestTable::start_head(const RunningAttempt& attempt) {
  CHECK(!queue_.empty() && queue_.front() == attempt.attempt.request);
  GatewayRequest& request = requests_.at(queue_.front());
  queue_.pop_front();
  return request.running.emplace(attempt);
}

void RequestTable::requeue(GatewayRequest& request) {
  CHECK(request.running);
  request.running.reset();
  queue_.push_front(request.work.request);
}

void RequestTable::release(RequestId leader, const std::optional<Disaggregate>& beside) {
  if (const auto entry = requests_.find(leader); entry != requests_.end()) entry->second.led = true;
  std::vector<RequestId> freed;
  for (auto& [id, request] : requests_) {
    if (!request.held || request.work.leader != leader) continue;
    request.held = false;
    request.beside = beside;
    --held_;
    freed.push_back(id);
  }
  queue_.insert(queue_.begin(), freed.begin(), freed.end());  // they came with their leader, which has left the queue
}

void RequestTable::erase(GatewayRequest& request) {
  const RequestId id = request.work.request;
  if (request.held) {
    --held_;
  } else if (!request.running) {
    CHECK(std::erase(queue_, id) == 1);
  }
  if (!request.led) {
    const auto& running = request.running;
    release(id, running ? std::optional(Disaggregate{running->prefill.node, running->decode.node}) : std::nullopt);
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
  size_t waiting = 0;
  for (const auto& [id, request] : requests_) {
    CHECK(request.work.request == id);
    CHECK(std::count(queue_.begin(), queue_.end(), id) == (request.running || request.held ? 0 : 1));
    CHECK(!request.held || (!request.running && requests_.contains(*request.work.leader)));
    waiting += request.running ? 0 : 1;
    if (!request.running) continue;
    CHECK(request.running->attempt.request == id && request.attempts > 0);
    CHECK(request.running->prefill.open || request.running->decode.open);
  }
  CHECK(waiting == queued());
}

}  // namespace spillway
