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

void Oracle::arrived(const GenerateRequest& work, bool too_long, ProcessId gateway) {
  Request request;
  request.work = work;
  request.too_long = too_long;
  request.gateway = gateway;
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
  share_leaders_fate(*request);
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

// A choice that waits for the first one of its prompt fails with it.
void Oracle::share_leaders_fate(Request& request) {
  if (!request.work.leader || !request.nodes.empty()) return;
  const auto leader = requests_.find(*request.work.leader);
  if (leader == requests_.end() || leader->second.outcome != Outcome::kFailed) return;
  touch(request, leader->second.touched_by);
  request.corrupted |= leader->second.corrupted;
}

void Oracle::left(RequestId request) {
  const auto entry = requests_.find(request);
  if (entry != requests_.end() && entry->second.outcome == Outcome::kOpen) close(entry->second, Outcome::kLeft);
}

void Oracle::gateway_died(ProcessId gateway) {
  for (auto& [id, request] : requests_) {
    if (request.outcome == Outcome::kOpen && request.gateway == gateway) close(request, Outcome::kGatewayDied);
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

void Oracle::touch_on(const std::vector<ProcessId>& nodes, std::optional<ProcessId> gateway, const std::string& by) {
  for (auto& [id, request] : requests_) {
    if (gateway && request.gateway != *gateway) continue;
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
  reused(node, token->attempt, token->timings.cached_tokens);
  const auto cancelled = cancelled_.find({node, token->attempt});
  if (cancelled == cancelled_.end() || now - cancelled->second > kCancelMemory) return;
  breach(fmt::format("process {} computed token {} of request {} after it was cancelled there",
                     static_cast<uint32_t>(node), token->index, token->attempt.request.counter));
}

// What a node found in its cache is public, or its own tenant left it there.
void Oracle::reused(ProcessId node, const Attempt& attempt, uint32_t cached_tokens) {
  const auto entry = requests_.find(attempt.request);
  if (cached_tokens == 0 || entry == requests_.end()) return;
  const Request& request = entry->second;
  if (request.outcome != Outcome::kOpen || had_before(node, request, attempt, cached_tokens)) return;
  ++public_hits_;
  const uint32_t shared = request.work.public_prefix.tokens;
  if (cached_tokens <= shared) return;
  breach(fmt::format("request {} found {} tokens of another tenant on process {}, and {} are public",
                     attempt.request.counter, cached_tokens, static_cast<uint32_t>(node), shared));
}

bool Oracle::had_before(ProcessId node, const Request& request, const Attempt& attempt, uint32_t cached_tokens) const {
  const std::vector<TokenId>& prompt = request.work.prompt;
  return std::ranges::any_of(requests_, [&](const auto& entry) {
    const Request& other = entry.second;
    if (other.work.tenant != request.work.tenant || !other.nodes.contains(node)) return false;
    if (&other == &request) return attempt.epoch > Epoch{1};
    std::vector<TokenId> left = other.work.prompt;
    left.insert(left.end(), other.expected.tokens.begin(), other.expected.tokens.end());
    return std::ranges::mismatch(prompt, left).in1 - prompt.begin() >= cached_tokens;
  });
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
  totals.public_hits = public_hits_;
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
