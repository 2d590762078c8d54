#include "simulator/coverage.h"

#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "simulator/attempt_of.h"

namespace spillway {
namespace {

using State = Coverage::State;

constexpr std::array<std::string_view, Coverage::kStates> kStateNames = {
    "unknown", "reserved", "streaming", "sampled", "commit-wait", "decoding", "ended"};

State after_delivery(Role role, State state, const Message& message) {
  const bool ends = std::holds_alternative<Cancel>(message) || std::holds_alternative<Failed>(message);
  if (ends) return State::kEnded;
  if (state == State::kEnded) return state;
  switch (role) {
    case Role::kGateway:
      if (const auto* const token = std::get_if<Token>(&message)) {
        if (token->finish != FinishReason::kNone) return State::kEnded;
        return token->index > 0 ? State::kDecoding : state == State::kReserved ? State::kSampled : state;
      }
      return state;
    case Role::kPrefill:
      if (std::holds_alternative<Prefill>(message)) return state == State::kUnknown ? State::kReserved : state;
      if (std::holds_alternative<Grant>(message)) return state == State::kReserved ? State::kStreaming : state;
      if (std::holds_alternative<Committed>(message)) return state == State::kCommitWait ? State::kEnded : state;
      return state;
    case Role::kDecode:
      if (std::holds_alternative<Reserve>(message)) return state == State::kUnknown ? State::kReserved : state;
      if (std::holds_alternative<PrefillDone>(message)) return state == State::kStreaming ? State::kSampled : state;
      return state;
  }
  return state;
}

State after_sending(Role role, State state, const Message& message) {
  if (std::holds_alternative<Failed>(message) || std::holds_alternative<Cancel>(message)) return State::kEnded;
  if (state == State::kEnded) return state;
  if (const auto* const token = std::get_if<Token>(&message)) {
    if (role == Role::kDecode) return token->finish == FinishReason::kNone ? State::kDecoding : State::kEnded;
    return state == State::kReserved ? State::kSampled : state;
  }
  if (const auto* const done = std::get_if<PrefillDone>(&message)) {
    return done->ended ? State::kEnded : State::kCommitWait;
  }
  if (std::holds_alternative<Prefill>(message)) return State::kReserved;
  if (std::holds_alternative<Grant>(message)) return State::kStreaming;
  if (std::holds_alternative<Committed>(message)) return State::kDecoding;
  return state;
}

}  // namespace

void Coverage::delivered(ProcessId to, Role role, const Message& message) {
  const Attempt* const attempt = attempt_of(message);
  const State before = attempt == nullptr ? State::kUnknown : state(to, *attempt);
  ++counts_[{role, std::string(message_name(message))}][static_cast<size_t>(before)];
  if (attempt != nullptr) state(to, *attempt) = after_delivery(role, before, message);
}

void Coverage::sent(ProcessId from, Role role, const Message& message) {
  if (const auto* const load = std::get_if<Load>(&message)) {
    Load& before = loads_[from];
    preemptions_ += load->preemptions - before.preemptions;
    recomputed_tokens_ += load->recomputed_tokens - before.recomputed_tokens;
    stalls_ += load->stalled_ms > 0 && before.stalled_ms == 0 ? 1 : 0;
    transfer_stalls_ += load->transfer_stalled_ms > 0 && before.transfer_stalled_ms == 0 ? 1 : 0;
    before = *load;
  }
  yields_ += std::holds_alternative<Yield>(message) ? 1 : 0;
  const auto* const token = std::get_if<Token>(&message);
  colocated_ += role == Role::kDecode && token != nullptr && token->index == 0 ? 1 : 0;
  const Attempt* const attempt = attempt_of(message);
  if (attempt != nullptr) state(from, *attempt) = after_sending(role, state(from, *attempt), message);
}

void Coverage::between_gateways(const Message& sent) {
  const auto* const failed = std::get_if<Failed>(&sent);
  refusals_ += failed != nullptr && failed->code == ErrorCode::kNoSpace ? 1 : 0;
  const auto* const prefill = std::get_if<Prefill>(&sent);
  if (prefill != nullptr) attempts_most_ = std::max(attempts_most_, static_cast<uint32_t>(prefill->work.attempt.epoch));
}

void Coverage::forget(ProcessId process) {
  std::erase_if(states_, [&](const auto& entry) { return entry.first.first == process; });
  loads_.erase(process);
}

void Coverage::add(const Coverage& other) {
  preemptions_ += other.preemptions_;
  recomputed_tokens_ += other.recomputed_tokens_;
  wants(other.wants_made_, other.wants_met_);
  refusals_ += other.refusals_;
  attempts_most_ = std::max(attempts_most_, other.attempts_most_);
  left_ += other.left_;
  stalls_ += other.stalls_;
  transfer_stalls_ += other.transfer_stalls_;
  yields_ += other.yields_;
  colocated_ += other.colocated_;
  for (const auto& [row, counts] : other.counts_) {
    for (size_t column = 0; column < kStates; ++column) counts_[row][column] += counts[column];
  }
}

uint64_t Coverage::count(Role receiver, std::string_view message, State state) const {
  const auto row = counts_.find({receiver, std::string(message)});
  return row == counts_.end() ? 0 : row->second[static_cast<size_t>(state)];
}

std::string Coverage::table() const {
  std::string text = fmt::format("{:24}", "message -> receiver");
  for (const std::string_view name : kStateNames) text += fmt::format("{:>13}", name);
  for (const auto& [row, counts] : counts_) {
    text += fmt::format("\n{:24}", fmt::format("{} -> {}", row.second, role_name(row.first)));
    for (const uint64_t count : counts) text += fmt::format("{:>13}", count);
  }
  return text + fmt::format(
                    "\n{} preemptions, {} tokens computed again; {} wants, {} met; {} refusals between gateways, "
                    "{} attempts at most; {} drains, {} stalls of steps and {} of transfers, {} yields; {} colocated\n",
                    preemptions_, recomputed_tokens_, wants_made_, wants_met_, refusals_, attempts_most_, left_,
                    stalls_, transfer_stalls_, yields_, colocated_);
}

}  // namespace spillway
