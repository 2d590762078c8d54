#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "common/bounded_vector.h"
#include "common/clock.h"
#include "gateway/gateway.h"

namespace spillway {

// A Gateway with a hand-moved clock, and what it did since the last take.
class GatewayUnderTest {
 public:
  explicit GatewayUnderTest(const GatewayConfig& config = {})
      : gateway(config, BootId{77}), effects_(gateway.effects_max()) {}

  static constexpr uint32_t kBlockTokens = 16, kSequencesMax = 16;

  void up(PeerId peer, Role role, uint32_t blocks = 64, uint32_t model_len = 512) {
    on(PeerUp{peer, hello(peer, role, blocks, model_len)});
  }
  static Hello hello(PeerId peer, Role role, uint32_t blocks = 64, uint32_t model_len = 512) {
    Hello hello;
    hello.role = role;
    hello.boot = boot_of(peer);
    hello.name = std::string(role_name(role)) + " " + std::to_string(static_cast<uint32_t>(peer));
    hello.control_endpoint = "ipc://" + hello.name;
    hello.blocks_total = blocks;
    hello.sequences_max = kSequencesMax;
    hello.max_model_len = model_len;
    hello.block_tokens = kBlockTokens;
    hello.step_tokens = 512;
    hello.growth_margin = role == Role::kDecode ? model_len : 0;
    return hello;
  }
  void up_pair() {
    up(kP, Role::kPrefill);
    up(kD, Role::kDecode);
    sent.clear();
  }
  RequestId arrive(uint32_t prompt_tokens = 20, uint32_t output_max = 4) {
    GenerateRequest work;
    work.request = {BootId{77}, ++requests_};
    work.prompt.assign(prompt_tokens, TokenId{5});
    work.output_tokens_max = output_max;
    work.stop_tokens = {2};
    work.sampling = {.temperature = 0.5f, .seed = 7, .top_k = 3};
    on(RequestArrived{work});
    return work.request;
  }
  void token(PeerId from, const Attempt& attempt, uint32_t index, FinishReason finish = FinishReason::kNone) {
    Token token;
    token.attempt = attempt;
    token.index = index;
    token.token = 100 + index;
    token.finish = finish;
    token.timings = timings;
    message(from, token);
  }
  // A Load that names no share is that of a node with this gateway alone, which has heard all if it has any sequence.
  void message(PeerId from, Message message) {
    if (auto* const load = std::get_if<Load>(&message); load != nullptr && load->blocks_share == 0) {
      load->blocks_share = load->blocks_free;
      load->sequences_share = kSequencesMax - std::min(load->running_sequences, kSequencesMax);
      if (load->newest_transfer == 0 && load->running_sequences > 0) load->newest_transfer = newest_transfer(from);
    }
    on(PeerMessage{from, std::move(message)});
  }
  void refuse(PeerId from, const Attempt& attempt) { message(from, Failed{attempt, ErrorCode::kNoSpace, "full"}); }
  void on(const GatewayEvent& event) {
    gateway.on(event, now, effects_);
    take();
    const auto* const up = std::get_if<PeerUp>(&event);
    if (up != nullptr && announces) message(up->peer, Load{.blocks_free = up->hello.blocks_total});
  }
  void advance(Duration duration) {
    now += duration;
    gateway.on_deadline(now, effects_);
    take();
  }
  // The attempt that the last Prefill named.
  Attempt attempt() const {
    const auto work = all<Prefill>(kP).empty() ? all<Prefill>(kP2) : all<Prefill>(kP);
    return work.back().work.attempt;
  }
  // Messages of one kind sent to one peer.
  template <class Kind>
  std::vector<Kind> all(PeerId to) const {
    std::vector<Kind> found;
    for (const SendMessage& one : sent) {
      if (one.to == to && std::holds_alternative<Kind>(one.message)) found.push_back(std::get<Kind>(one.message));
    }
    return found;
  }
  std::vector<TokenId> streamed(RequestId request) const {
    std::vector<TokenId> found;
    for (const StreamToken& one : tokens) {
      if (one.request == request) found.push_back(one.token);
    }
    return found;
  }
  std::vector<ErrorCode> errors_of(RequestId request) const {
    std::vector<ErrorCode> found;
    for (const StreamError& one : errors) {
      if (one.request == request) found.push_back(one.error.code);
    }
    return found;
  }
  uint64_t newest_transfer(PeerId node) const {
    uint64_t newest = 0;
    for (const Prefill& one : all<Prefill>(node)) newest = std::max(newest, one.work.attempt.transfer.counter);
    for (const Reserve& one : all<Reserve>(node)) newest = std::max(newest, one.work.attempt.transfer.counter);
    return newest;
  }
  static BootId boot_of(PeerId peer) { return BootId{1000 + static_cast<uint64_t>(peer)}; }

  static constexpr PeerId kP{1}, kD{2}, kP2{3}, kD2{4};
  Gateway gateway;
  TimePoint now{std::chrono::hours(1)};
  NodeTimings timings;
  bool announces = true;  // a node that comes up says its Load at once
  std::vector<SendMessage> sent;
  std::vector<StreamToken> tokens;
  std::vector<StreamScores> scores;
  std::vector<StreamEnd> ends;
  std::vector<StreamError> errors;

 private:
  void operator()(const SendMessage& one) { sent.push_back(one); }
  void operator()(const StreamToken& one) { tokens.push_back(one); }
  void operator()(const StreamScores& one) { scores.push_back(one); }
  void operator()(const StreamEnd& one) { ends.push_back(one); }
  void operator()(const StreamError& one) { errors.push_back(one); }
  void take() {
    gateway.check_conservation();
    for (const GatewayEffect& effect : effects_) std::visit([this](const auto& one) { (*this)(one); }, effect);
    effects_.clear();
  }
  BoundedVector<GatewayEffect> effects_;
  uint64_t requests_ = 0;
};

}  // namespace spillway
