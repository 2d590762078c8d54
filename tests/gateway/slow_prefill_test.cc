// A prefill node that is slow, silent, or busy with others: where its prompts wait and how long.
#include <gtest/gtest.h>

#include <deque>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using namespace std::chrono_literals;
using Codes = std::vector<ErrorCode>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;

// kP, as a node of one prompt after the other and 512 tokens a step; kD ends each request with its second token.
class SlowPrefill {
 public:
  SlowPrefill(GatewayUnderTest& test, Duration step) : test_(test), step_(step) {
    test_.up(kP, Role::kPrefill, 4096, 16384);
    test_.up(kD, Role::kDecode, 4096, 16384);
  }
  // Takes what was sent to it, then computes for one step. False: it had nothing to do.
  bool run_step() {
    const auto sent = test_.all<Prefill>(kP);
    while (taken_ < sent.size()) {
      const Work& work = sent[taken_++].work;
      prompts_.push_back({work.attempt, static_cast<uint32_t>(work.prompt.size())});
      announce();
    }
    if (prompts_.empty()) return false;
    test_.advance(step_);
    Prompt& first = prompts_.front();
    first.tokens_left -= std::min(first.tokens_left, 512u);
    if (first.tokens_left == 0) {
      const Attempt attempt = first.attempt;
      prompts_.pop_front();
      test_.token(kP, attempt, 0);
      test_.token(kD, attempt, 1, FinishReason::kStop);
    }
    announce();
    return true;
  }
  // Tokens of prompts that wait behind the one being computed.
  uint32_t waiting_tokens() const {
    uint32_t tokens = 0;
    for (size_t place = 1; place < prompts_.size(); ++place) tokens += prompts_[place].tokens_left;
    return tokens;
  }

 private:
  struct Prompt {
    Attempt attempt;
    uint32_t tokens_left;
  };
  void announce() {
    uint32_t tokens = 0;
    for (const Prompt& prompt : prompts_) tokens += prompt.tokens_left;
    Load load{4096, static_cast<uint32_t>(prompts_.size()), tokens};
    if (taken_ > 0) load.newest_transfer = test_.all<Prefill>(kP)[taken_ - 1].work.attempt.transfer.counter;
    test_.message(kP, load);
  }
  GatewayUnderTest& test_;
  Duration step_;
  size_t taken_ = 0;
  std::deque<Prompt> prompts_;
};

TEST(SlowPrefill, FortyLongPromptsWaitInTheGatewayAndAllFinish) {
  GatewayUnderTest test;
  SlowPrefill node(test, 2500ms);
  for (int prompt = 0; prompt < 40; ++prompt) test.arrive(500, 2);
  while (node.run_step()) EXPECT_LE(node.waiting_tokens(), 1024u);
  EXPECT_TRUE(test.errors.empty());
  EXPECT_EQ(test.ends.size(), 40u);
}

TEST(SlowPrefill, ThatHasEnoughToComputeIsNotChosen) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill, 4096, 4096);
  test.up(kD, Role::kDecode, 4096, 4096);
  test.arrive(2000, 2);
  test.message(kP, Load{4096, 1, 1024});
  test.arrive();
  EXPECT_EQ(test.all<Prefill>(kP).size(), 1u);
  test.message(kP, Load{4096, 1, 1023});
  EXPECT_EQ(test.all<Prefill>(kP).size(), 2u);
}

TEST(SlowPrefill, IsNotLockedByAnotherGatewaysPrompts) {
  GatewayUnderTest test;
  test.up(kP, Role::kPrefill, 4096, 4096);
  test.up(kD, Role::kDecode, 4096, 4096);
  test.message(kP, Load{4096, 3, 100'000});
  test.arrive(1024, 2);
  test.arrive(1024, 2);
  EXPECT_EQ(test.all<Prefill>(kP).size(), 1u);  // enough of our own
}

TEST(SlowPrefill, HasEnoughWithTwoStepsOfItsOwnSize) {
  GatewayUnderTest test;
  Hello small = GatewayUnderTest::hello(kP, Role::kPrefill);
  small.step_tokens = 64;
  test.on(PeerUp{kP, small});
  test.up(kD, Role::kDecode);
  test.arrive(300, 2);
  test.message(kP, Load{64, 1, 128});
  test.arrive();
  EXPECT_EQ(test.all<Prefill>(kP).size(), 1u);
  test.message(kP, Load{64, 1, 127});
  EXPECT_EQ(test.all<Prefill>(kP).size(), 2u);
}

TEST(SlowPrefill, ComputingIsProgressOfAllThatWaitThere) {
  GatewayUnderTest test;
  SlowPrefill node(test, 10s);
  test.arrive(10000, 2);
  while (node.run_step()) continue;
  EXPECT_TRUE(test.errors.empty());
  EXPECT_EQ(test.ends.size(), 1u);

  const RequestId first = test.arrive(500, 2);
  test.arrive(20, 2);
  test.advance(20s);
  test.token(kP, test.all<Prefill>(kP)[1].work.attempt, 0, FinishReason::kStop);
  EXPECT_EQ(test.gateway.next_deadline(), test.now + 30s);
  EXPECT_TRUE(test.errors_of(first).empty());
}

TEST(SlowPrefill, ThatFallsSilentEndsItsRequestsAtTheLimit) {
  GatewayUnderTest test;
  SlowPrefill node(test, 10s);
  const RequestId request = test.arrive(10000, 2);
  ASSERT_TRUE(node.run_step());
  test.advance(20s);
  test.message(kP, Load{4096, 2, 10500});  // more to do is no progress
  test.message(kP, Load{4096, 1, 9488});   // nor is a prompt that was cancelled
  test.advance(10s - 1ns);
  EXPECT_TRUE(test.errors.empty());
  test.advance(1ns);
  EXPECT_EQ(test.errors_of(request), Codes{ErrorCode::kDeadline});
  EXPECT_NE(test.errors[0].error.detail.find("prefill 1 made no progress with this request for 30 s, the limit"),
            std::string::npos);
}

TEST(SlowPrefill, MoreThanTheQueueHoldsIsRefusedWhileItComputes) {
  GatewayUnderTest test({.queue_max = 2});
  SlowPrefill node(test, 10s);
  test.arrive(2000, 2);
  test.arrive(500, 2);
  test.arrive(500, 2);
  EXPECT_EQ(test.errors_of(test.arrive(500, 2)), Codes{ErrorCode::kQueueFull});
  while (node.run_step()) continue;
  EXPECT_EQ(test.ends.size(), 3u);
}

}  // namespace
}  // namespace spillway
