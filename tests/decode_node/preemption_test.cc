// Sequences that outgrow the pool of a decode node.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "tests/decode_node/decode_script.h"

namespace spillway::script {
namespace {

constexpr uint32_t kPrompt = 3 * kBlockTokens, kOutput = 200;

// Indices of the tokens sent for a request.
std::vector<uint32_t> indices_of(const DecodeScript& d, uint64_t request) {
  std::vector<uint32_t> found;
  for (const auto& [to, token] : d.sent<Token>())
    if (token.attempt == attempt(request)) found.push_back(token.index);
  return found;
}

// Two that decode in a pool of seven blocks, of which the younger one has just been preempted.
struct Preempted : DecodeScript {
  explicit Preempted(uint32_t slots = 7) : DecodeScript({.slots = slots, .growth_margin = 0}) {
    connect();
    for (const uint64_t request : {1u, 2u}) {
      reserve(kPrompt, attempt(request), kOutput);
      land_all(attempt(request));
      done(kPrompt, attempt(request));
    }
    answer_closes();
    while (step && engine.preempted() == 0) finish_step();
  }
  std::vector<uint32_t> indices(uint64_t request) const { return indices_of(*this, request); }
};

TEST(DecodePreemption, TheYoungestComputesPromptAndOutputAgainAndGoesOn) {
  Preempted d;
  EXPECT_EQ(d.engine.preempted(), 1u);
  EXPECT_EQ(d.node.requests(), 2u);
  const Load load = d.loads.back().second;
  EXPECT_EQ(load.running_sequences, 2u);
  EXPECT_EQ(load.preempted_sequences, 1u);
  EXPECT_EQ(load.preemptions, 1u);
  EXPECT_EQ(load.queued_prompt_tokens, kPrompt + d.indices(2).size() + 1);  // token 0 is P's
  d.finish_steps();
  EXPECT_TRUE(d.empty());
  for (const uint64_t request : {1u, 2u}) {
    const std::vector<uint32_t> indices = d.indices(request);
    ASSERT_EQ(indices.size(), kOutput - 1) << request;  // each once, in order, to the last
    for (uint32_t i = 0; i < indices.size(); ++i) ASSERT_EQ(indices[i], i + 1);
  }
  EXPECT_TRUE(d.sent<Failed>().empty());
  EXPECT_GT(d.loads.back().second.recomputed_tokens, 0u);
  EXPECT_EQ(d.loads.back().second.preempted_sequences, 0u);
}

TEST(DecodePreemption, TheLayersOfALongStepThatComputesAgainAreSignsOfLife) {
  Preempted d;
  const auto stalled_after = [&](Duration later) {
    d.now += later;
    d.on(BulkLost{kNobody});  // any event, as a turn of the loop
    return d.loads.back().second.stalled_ms;
  };
  while (d.step && !d.step->announce_layers) d.finish_step();
  ASSERT_TRUE(d.step) << "no step computed a prompt again";
  for (uint16_t layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(stalled_after(std::chrono::seconds(4)), 0u);
    d.on(LayerDone{d.step->step, layer});
  }
  d.on(LayerDone{StepId{999}, 0});  // of no step in flight: no sign
  EXPECT_EQ(stalled_after(std::chrono::seconds(6)), 6000u);
  d.finish_steps();
  EXPECT_EQ(d.loads.back().second.stalled_ms, 0u);
}

TEST(DecodePreemption, NothingNewIsReservedBeforeTheyAreBack) {
  Preempted d;
  d.reserve(1, attempt(3), 1);
  ASSERT_EQ(d.sent<Failed>().size(), 2u);  // both ends
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kNoSpace);
  d.finish_steps();
  d.reserve(1, attempt(4), 1);
  EXPECT_EQ(d.node.requests(), 1u);
}

TEST(DecodePreemption, EveryExitOfAPreemptedOneReleasesIt) {
  const std::vector<std::function<void(DecodeScript&)>> exits{
      [](DecodeScript& d) { d.from(kGateway, Cancel{attempt(2)}); },
      [](DecodeScript& d) {
        d.from(kGateway, Failed{attempt(2), ErrorCode::kDeadline, "too long"});
      },
      [](DecodeScript& d) {
        d.on(PeerGone{kGateway, "killed"});
      },
      [](DecodeScript& d) { d.reserve(kPrompt, attempt(2, 6), kOutput); },  // a newer epoch
  };
  for (const auto& leave : exits) {
    Preempted d;
    leave(d);
    EXPECT_EQ(d.engine.preempted(), 0u);
    d.pass(std::chrono::minutes(1));
    EXPECT_TRUE(d.empty());
  }
}

TEST(DecodePreemption, TheLossOfThePrefillNodeDoesNotMatterToIt) {
  Preempted d;
  d.on(PeerGone{kPrefillPeer, "killed"});
  EXPECT_EQ(d.engine.preempted(), 1u);
  d.finish_steps();
  EXPECT_EQ(d.indices(2).size(), kOutput - 1);
}

// One that decodes, and has taken all that two reservations leave.
struct Stuck : DecodeScript {
  Stuck() : DecodeScript({.slots = 9, .growth_margin = 0}) {
    connect();
    for (const uint64_t request : {1u, 2u, 3u})
      reserve(request == 1 ? kPrompt : kPrompt - kBlockTokens, attempt(request), kOutput);
    land_all(attempt(1));
    done(kPrompt, attempt(1));
    answer_closes();
    forget_messages();
    while (step) finish_step();
  }
  std::vector<uint64_t> asked() const {
    std::vector<uint64_t> requests;
    for (const auto& [to, yield] : sent<Yield>()) {
      EXPECT_EQ(to, kPrefillPeer);
      requests.push_back(yield.attempt.request.counter);
    }
    return requests;
  }
};

TEST(DecodePreemption, WhereOnlyReservationsHoldTheSlotsTheYoungestIsAskedToYield) {
  Stuck d;
  EXPECT_EQ(d.engine.preempted(), 1u);
  EXPECT_EQ(d.asked(), (std::vector<uint64_t>{3}));
  d.pass(std::chrono::milliseconds(900));
  EXPECT_EQ(d.asked().size(), 1u);
  d.now += std::chrono::milliseconds(100);
  d.from(kPrefillPeer, Lease{attempt(2), 5000});  // any event
  EXPECT_EQ(d.asked().size(), 2u) << "the word may be lost, or have come before the prompt";
  d.from(kPrefillPeer, Failed{attempt(3), ErrorCode::kNoSpace, "given up"});
  EXPECT_TRUE(d.sent<Failed>().empty()) << "the gateway heard it from P";
  EXPECT_FALSE(d.step) << "frames may still land";
  d.pass(std::chrono::milliseconds(1));
  EXPECT_EQ(d.asked().size(), 2u) << "its slots are enough";
  EXPECT_TRUE(d.step || d.engine.preempted() == 0);
  d.finish_steps();
  EXPECT_GT(indices_of(d, 1).size(), 2 * kBlockTokens);
}

TEST(DecodePreemption, WhatIsSampledAlreadyIsNotAskedToYield) {
  DecodeScript d({.slots = 9, .growth_margin = 0});
  d.connect();
  for (const uint64_t request : {1u, 2u, 3u})
    d.reserve(request == 1 ? kPrompt : kPrompt - kBlockTokens, attempt(request), kOutput);
  d.land_all(attempt(1));
  d.done(kPrompt, attempt(1));
  d.answer_closes();
  d.done(kPrompt - kBlockTokens, attempt(3));  // its blocks are on their way
  d.forget_messages();
  while (d.step) d.finish_step();
  ASSERT_EQ(d.sent<Yield>().size(), 1u);
  EXPECT_EQ(d.sent<Yield>()[0].second.attempt, attempt(2));
}

}  // namespace
}  // namespace spillway::script
