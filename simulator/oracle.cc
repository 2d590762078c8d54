#include "simulator/oracle.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/check.h"
#include "simulator/attempt_of.h"

namespace spillway {
namespace {

// A node remembers a bounded number of ended attempts; a Prefill or Reserve that comes seconds after its Cancel may
// start again, and ends by its lease.
constexpr Duration kCancelMemory = std::chrono::milliseconds(500);

}  // namespace

void Oracle::breach(std::string what) {
  if (!breach_) breach_ = std::move(what);
}

void Oracle::arrived(const GenerateRequest& work, bool too_long) {
  Request request;
  request.work = work;
  request.too_long = too_long;
  if (!too_long) request.expected = reference_answer(model_, work);
  CHECK(requests_.emplace(work.request, std::move(request)).second);
  ++open_;
}

Oracle::Request* Oracle::open_request(RequestId request, const char* what) {
  const auto entry = requests_.find(request);
  if (entry != requests_.end() && entry->second.outcome == Outcome::kOpen) return &entry->second;
  breach(fmt::format("request {} got {} after its final answer", request.counter, what));
  return nullptr;
}

void Oracle::close(Request& request, Outcome outcome) {
  request.outcome = outcome;
  --open_;
}

void Oracle::streamed(const StreamToken& token) {
  Request* const request = open_request(token.request, "a token");
  if (request == nullptr) return;
  const uint64_t counter = token.request.counter;
  if (token.index != request->streamed) {
    return breach(fmt::format("request {}: token {} came where {} was due", counter, token.index, request->streamed));
  }
  const ReferenceAnswer& expected = request->expected;
  if (token.index >= expected.tokens.size()) {
    return breach(
        fmt::format("request {}: token {} after the end at {}", counter, token.index, expected.tokens.size()));
  }
  if (token.token != expected.tokens[token.index]) {
    return breach(fmt::format("request {}: token {} is {} but must be {} (touched by: {})", counter, token.index,
                              token.token, expected.tokens[token.index], request->touched_by));
  }
  const uint64_t digest = request->work.digest_logits ? expected.digests[token.index] : 0;
  if (token.logits_digest != digest)
    breach(fmt::format("request {}: digest of token {} differs", counter, token.index));
  ++request->streamed;
}

void Oracle::ended(const StreamEnd& end) {
  Request* const request = open_request(end.request, "an end");
  if (request == nullptr) return;
  close(*request, Outcome::kEnded);
  if (request->streamed != request->expected.tokens.size() || end.finish != request->expected.finish) {
    breach(fmt::format("request {} ended after {} of {} tokens", end.request.counter, request->streamed,
                       request->expected.tokens.size()));
  }
}

void Oracle::failed(const StreamError& error) {
  Request* const request = open_request(error.request, "an error");
  if (request == nullptr) return;
  close(*request, Outcome::kFailed);
  const ErrorCode code = error.error.code;
  const bool always_wrong = code == ErrorCode::kInternal || code == ErrorCode::kInvalidArgument ||
                            code == ErrorCode::kUnsupported || (code == ErrorCode::kCorrupt && !request->corrupted);
  const bool justified =
      request->too_long ? code == ErrorCode::kTooLong : !request->touched_by.empty() && !always_wrong;
  if (justified) return;
  breach(fmt::format("request {} failed without cause: {}: {} (touched by: {})", error.request.counter,
                     error_name(code), error.error.detail, request->touched_by));
}

void Oracle::left(RequestId request) {
  const auto entry = requests_.find(request);
  if (entry != requests_.end() && entry->second.outcome == Outcome::kOpen) close(entry->second, Outcome::kLeft);
}

void Oracle::gateway_died() {
  for (auto& [id, request] : requests_) {
    if (request.outcome == Outcome::kOpen) close(request, Outcome::kGatewayDied);
  }
}

void Oracle::placed(const Attempt& attempt, ProcessId node) {
  transfers_.emplace(attempt.transfer, attempt.request);
  const auto entry = requests_.find(attempt.request);
  if (entry != requests_.end()) entry->second.nodes.insert(node);
}

void Oracle::touch(Request& request, const std::string& by) {
  if (request.outcome == Outcome::kOpen && request.touched_by.empty()) request.touched_by = by;
}

void Oracle::touch(const Attempt& attempt, const std::string& by) {
  const auto entry = requests_.find(attempt.request);
  if (entry != requests_.end()) touch(entry->second, by);
}

void Oracle::touch(TransferId transfer, const std::string& by) {
  const auto entry = transfers_.find(transfer);
  if (entry == transfers_.end()) return;
  Request& request = requests_.at(entry->second);
  request.corrupted = true;
  touch(request, by);
}

void Oracle::touch_on(const std::vector<ProcessId>& nodes, const std::string& by) {
  for (auto& [id, request] : requests_) {
    if (std::ranges::all_of(nodes, [&](ProcessId node) { return request.nodes.contains(node); })) touch(request, by);
  }
}

void Oracle::sent_parts(const SendParts& job) {
  // A Prefill and a Reserve that both come again, seconds after the answer, may run the attempt again.
  if (requests_.at(transfers_.at(job.transfer)).outcome != Outcome::kOpen) return;
  for (uint32_t layer = job.layers.first; layer < uint32_t{job.layers.first} + job.layers.count; ++layer) {
    if (parts_sent_[job.transfer].emplace(job.block_index, layer).second) continue;
    breach(fmt::format("block {} layer {} of one transfer was sent twice", job.block_index, layer));
  }
}

void Oracle::cancelled(ProcessId node, const Attempt& attempt, TimePoint now) {
  cancelled_.emplace(std::pair{node, attempt}, now);
}

void Oracle::said(ProcessId node, const Message& message, TimePoint now) {
  const auto* const token = std::get_if<Token>(&message);
  if (token == nullptr) return;
  const auto cancelled = cancelled_.find({node, token->attempt});
  if (cancelled == cancelled_.end() || now - cancelled->second > kCancelMemory) return;
  breach(fmt::format("process {} computed token {} of request {} after it was cancelled there",
                     static_cast<uint32_t>(node), token->index, token->attempt.request.counter));
}

std::string Oracle::unanswered() const {
  std::string text;
  for (const auto& [id, request] : requests_) {
    if (request.outcome == Outcome::kOpen) text += fmt::format(" {}", id.counter);
  }
  return text;
}

Oracle::Totals Oracle::totals() const {
  Totals totals;
  for (const auto& [id, request] : requests_) {
    ++totals.requests;
    totals.ended += request.outcome == Outcome::kEnded;
    totals.failed += request.outcome == Outcome::kFailed;
    totals.left += request.outcome == Outcome::kLeft;
    totals.gateway_died += request.outcome == Outcome::kGatewayDied;
  }
  return totals;
}

}  // namespace spillway
