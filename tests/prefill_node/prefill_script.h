#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "prefill_node/prefill_node.h"
#include "tests/support/node_script.h"

namespace spillway::script {

// A prefill node with a scripted world: time, compute and transfer move only when the test says so. After each event
// conservation is checked.
class PrefillScript {
 public:
  struct Options {
    uint32_t slots = 64, requests_max = 4, window = 256, layers_per_frame = 1;
  };
  PrefillScript() : PrefillScript(Options{}) {}
  explicit PrefillScript(const Options& options)
      : cache(cache_config(options.slots)),
        engine(engine_config(true), cache),
        sender({.layer_count = kLayers,
                .transfers_max = 8,
                .window = options.window,
                .sends_max = 2 * options.window,
                .layers_per_frame = options.layers_per_frame},
               cache),
        config{.requests_max = options.requests_max, .vocab = kVocab, .peers_max = 8},
        node(config, engine, sender),
        effects_(node.effects_max()) {}

  void connect() {
    on(PeerUp{kGateway, hello(Role::kGateway, kGatewayBoot)});
    on(PeerUp{kDecodePeer, hello(Role::kDecode, kDecodeBoot)});
    on(BulkReady{kDecodePeer});
    on(PeerUp{kStranger, hello(Role::kDecode, kStrangerBoot)});
    forget_messages();
  }
  void on(const PrefillEvent& event) {
    node.on(event, now, effects_);
    absorb();
  }
  void from(PeerId peer, Message message) { on(PeerMessage{peer, std::move(message)}); }
  void prefill(uint32_t prompt_tokens, const Attempt& about = attempt(), uint32_t output_tokens = 4) {
    from(kGateway, Prefill{work(about, prompt_tokens, output_tokens), kDecodeBoot});
  }
  void layer_done(uint16_t layer) { on(LayerDone{step->step, layer}); }
  // All layers, then the step's end with `token` sampled where the step samples.
  void finish_step(TokenId token = 7, bool finite = true, bool announce = true) {
    ASSERT_TRUE(step);
    for (uint16_t layer = 0; layer < kLayers && announce; ++layer) layer_done(layer);
    end_step(token, finite);
  }
  void end_step(TokenId token = 7, bool finite = true) {
    StepDone done{step->step, {}, kMs};
    for (const StepShare& share : step->shares) {
      if (share.samples) done.sampled.push_back({share.sequence, token, 11, finite});
    }
    step.reset();
    on(done);
  }
  void finish_steps(TokenId token = 7) {
    while (step) finish_step(token);
  }
  void answer_sends(TransferStatus status = TransferStatus::kOk) {
    if (std::exchange(probed, false)) on(TransferAlive{});
    while (!sends.empty()) {
      const SendId send = sends.front().send;
      sends.pop_front();
      on(PartsSent{send, status});
    }
  }
  // Lets compute and transfer finish and `span` pass, deadline by deadline: nothing may be due for long, or twice.
  void pass(Duration span) {
    const TimePoint end = now + span;
    finish_steps();
    answer_sends();
    for (int turns = 0; node.next_deadline() <= end; ++turns) {
      ASSERT_LT(turns, 1000);
      now = std::max(now, node.next_deadline());
      deadline();
      ASSERT_GT(node.next_deadline(), now);
      finish_steps();
      answer_sends();
    }
    now = end;
  }
  void deadline() {
    node.on_deadline(now, effects_);
    absorb();
  }
  // The messages of one kind since forget_messages(), with their addressees.
  template <class Kind>
  std::vector<std::pair<PeerId, Kind>> sent() const {
    std::vector<std::pair<PeerId, Kind>> found;
    for (const SendMessage& one : messages) {
      if (const auto* message = std::get_if<Kind>(&one.message)) found.emplace_back(one.to, *message);
    }
    return found;
  }
  void forget_messages() { messages.clear(); }
  bool empty() const { return node.requests() == 0 && cache.counts().held == 0 && sender.open_transfers() == 0; }

  KvCache cache;
  Engine engine;
  KvSender sender;
  PrefillConfig config;
  PrefillNode node;
  TimePoint now{std::chrono::seconds(1000)};
  std::optional<StepPlan> step;       // in flight
  std::deque<SendParts> sends;        // in flight
  bool probed = false;                // not answered yet
  std::vector<SendParts> parts;       // all sends ever
  std::vector<SendMessage> messages;  // since forget_messages(), no Load
  std::vector<std::pair<PeerId, Load>> loads;
  std::vector<PrefillEffect> links;  // ConnectPeer, ConnectBulk, DisconnectBulk

 private:
  void absorb() {
    for (const PrefillEffect& effect : effects_) {
      if (const auto* message = std::get_if<SendMessage>(&effect)) {
        if (const auto* load = std::get_if<Load>(&message->message)) {
          loads.emplace_back(message->to, *load);
        } else {
          messages.push_back(*message);
        }
      } else if (const auto* job = std::get_if<SendParts>(&effect)) {
        sends.push_back(*job);
        parts.push_back(*job);
      } else if (const auto* plan = std::get_if<StepPlan>(&effect)) {
        ASSERT_FALSE(step) << "two steps in flight";
        step = *plan;
      } else if (std::holds_alternative<TransferProbe>(effect)) {
        ASSERT_FALSE(probed) << "asked twice";
        probed = true;
      } else {
        links.push_back(effect);
      }
    }
    effects_.clear();
    node.check_conservation();
  }
  BoundedVector<PrefillEffect> effects_;
};

}  // namespace spillway::script
