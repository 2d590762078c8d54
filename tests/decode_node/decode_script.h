#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "decode_node/decode_node.h"
#include "tests/support/node_script.h"

namespace spillway::script {

// A decode node with a scripted world: time, compute and transfer move only when the test says so. After each event
// conservation is checked.
class DecodeScript {
 public:
  struct Options {
    uint32_t slots = 64, requests_max = 4, transfers_max = 8, growth_margin = 64;
    bool colocates = true;
  };
  DecodeScript() : DecodeScript(Options{}) {}
  explicit DecodeScript(const Options& options)
      : cache(cache_config(options.slots)),
        engine(with_margin(engine_config(false), options.growth_margin), cache),
        receiver({kLayers, options.transfers_max}, cache),
        config{.requests_max = options.requests_max,
               .boot = kDecodeBoot,
               .colocates = options.colocates,
               .vocab = kVocab,
               .peers_max = 8},
        node(config, engine, receiver),
        effects_(node.effects_max()) {}

  void connect_gateway() { on(PeerUp{kGateway, hello(Role::kGateway, kGatewayBoot)}); }
  void connect_prefill() {
    on(PeerUp{kPrefillPeer, hello(Role::kPrefill, kPrefillBoot)});
    on(BulkReady{kPrefillPeer});
  }
  void connect() {
    connect_gateway();
    connect_prefill();
    on(PeerUp{kStranger, hello(Role::kPrefill, kStrangerBoot)});
    forget_messages();
  }
  void on(const DecodeEvent& event) {
    node.on(event, now, effects_);
    absorb();
  }
  void from(PeerId peer, Message message) { on(PeerMessage{peer, std::move(message)}); }
  void reserve(uint32_t prompt_tokens, const Attempt& about = attempt(), uint32_t output_tokens = 4) {
    from(kGateway, Reserve{work(about, prompt_tokens, output_tokens), kPrefillBoot});
  }
  void colocate(uint32_t prompt_tokens, const Attempt& about = attempt(), uint32_t output_tokens = 4) {
    from(kGateway, Reserve{work(about, prompt_tokens, output_tokens), kDecodeBoot});
  }
  void done(uint32_t prompt_tokens, const Attempt& about = attempt(), TokenId token = 7, bool ended = false) {
    from(kPrefillPeer, PrefillDone{about, prompt_tokens, token, ended});
  }
  void land(uint32_t block, LayerRange layers, const Attempt& about = attempt(), bool intact = true) {
    on(PartsLanded{about.transfer, about.epoch, block, layers, intact});
  }
  // Every part of the blocks that an open transfer wants.
  void land_all(const Attempt& about = attempt()) {
    for (const OpenTransfer& job : opened) {
      if (job.transfer != about.transfer) continue;
      for (uint32_t block = 0; block < job.slots.size(); ++block) land(job.first_block + block, {0, kLayers}, about);
    }
  }
  void finish_step(TokenId token = 8, bool finite = true) {
    ASSERT_TRUE(step);
    StepDone answer{step->step, {}, 2 * kMs};
    for (const StepShare& share : step->shares)
      if (share.samples) answer.sampled.push_back({share.sequence, token, 11, finite});
    step.reset();
    on(answer);
  }
  void finish_steps(TokenId token = 8) {
    while (step) finish_step(token);
  }
  void answer_closes() {
    if (std::exchange(probed, false)) on(TransferAlive{});
    while (!closes.empty()) {
      const CloseTransfer job = closes.front();
      closes.pop_front();
      on(TransferClosed{job.transfer, job.epoch});
    }
  }
  // Lets compute and transfer finish and `span` pass, deadline by deadline: nothing may be due for long, or twice.
  void pass(Duration span) {
    const TimePoint end = now + span;
    finish_steps();
    answer_closes();
    for (int turns = 0; node.next_deadline() <= end; ++turns) {
      ASSERT_LT(turns, 1000);
      now = std::max(now, node.next_deadline());
      node.on_deadline(now, effects_);
      absorb();
      ASSERT_GT(node.next_deadline(), now);
      finish_steps();
      answer_closes();
    }
    now = end;
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
  bool empty() const { return node.requests() == 0 && cache.counts().held == 0 && receiver.open_transfers() == 0; }

  KvCache cache;
  Engine engine;
  KvReceiver receiver;
  DecodeConfig config;
  DecodeNode node;
  TimePoint now{std::chrono::seconds(1000)};
  std::optional<StepPlan> step;       // in flight
  std::vector<OpenTransfer> opened;   // all ever
  std::deque<CloseTransfer> closes;   // not answered yet
  bool probed = false;                // likewise
  std::vector<SendMessage> messages;  // since forget_messages(), no Load
  std::vector<std::pair<PeerId, Load>> loads;
  std::vector<DecodeEffect> links;  // ConnectBulk, DisconnectBulk

 private:
  static EngineConfig with_margin(EngineConfig config, uint32_t growth_margin) {
    config.growth_margin = growth_margin;
    return config;
  }
  void absorb() {
    for (const DecodeEffect& effect : effects_) {
      if (const auto* message = std::get_if<SendMessage>(&effect)) {
        take_message(*message);
      } else if (const auto* open = std::get_if<OpenTransfer>(&effect)) {
        opened.push_back(*open);
      } else if (const auto* close = std::get_if<CloseTransfer>(&effect)) {
        closes.push_back(*close);
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
  void take_message(const SendMessage& sent) {
    if (const auto* load = std::get_if<Load>(&sent.message)) {
      loads.emplace_back(sent.to, *load);
      return;
    }
    if (const auto* grant = std::get_if<Grant>(&sent.message)) expect_open_before(*grant);
    messages.push_back(sent);
  }
  // A Grant invites parts: the transfer thread must know them by then, if any are wanted.
  void expect_open_before(const Grant& grant) const {
    const bool open = std::ranges::any_of(opened, [&](const OpenTransfer& job) {
      return job.transfer == grant.attempt.transfer && job.epoch == grant.attempt.epoch &&
             job.first_block == grant.first_block;
    });
    EXPECT_TRUE(open || receiver.complete(grant.attempt.transfer));
  }
  BoundedVector<DecodeEffect> effects_;
};

}  // namespace spillway::script
