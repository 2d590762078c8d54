// The queue between tenants: nobody's burst delays or locks out another.
#include <gtest/gtest.h>

#include "tests/gateway/gateway_under_test.h"

namespace spillway {
namespace {

using Codes = std::vector<ErrorCode>;
constexpr PeerId kP = GatewayUnderTest::kP, kD = GatewayUnderTest::kD;

class TenantQueue : public testing::Test {
 protected:
  RequestId arrive(uint8_t tenant, int32_t priority = 0) {
    GenerateRequest work;
    work.request = {BootId{77}, ++requests_};
    work.prompt.assign(20, TokenId{5});
    work.output_tokens_max = 4;
    work.stop_tokens = {2};
    work.priority = priority;
    work.tenant.bytes.fill(std::byte{tenant});
    gateway_.on(RequestArrived{work});
    return work.request;
  }
  // The node computes one request at a time; this one ends, and the next that left the queue is returned.
  RequestId serve() {
    gateway_.token(kP, gateway_.attempt(), 0, FinishReason::kStop);
    gateway_.message(kD, Load{2, 0, 0});
    return gateway_.attempt().request;
  }
  void up() {
    gateway_.up(kP, Role::kPrefill);
    gateway_.up(kD, Role::kDecode, 2);  // room for one
  }
  GatewayUnderTest gateway_{{.queue_max = 1000}};
  uint64_t requests_ = 0;
};

TEST_F(TenantQueue, OneRequestIsNextWhateverAnotherTenantSentBefore) {
  up();
  for (int count = 0; count < 1000; ++count) arrive(1);
  const RequestId single = arrive(2);
  EXPECT_EQ(serve(), single);
}

TEST_F(TenantQueue, PriorityOrdersWithinATenantOnly) {
  up();
  arrive(1);
  const RequestId late = arrive(1, 5), soon = arrive(1, -5), other = arrive(2, 100);
  EXPECT_EQ(serve(), other);  // it got nothing yet
  EXPECT_EQ(serve(), soon);
  EXPECT_EQ(serve(), late);
}

TEST_F(TenantQueue, AFullQueueTurnsAwayTheTenantThatFilledIt) {
  RequestId last{};
  for (int count = 0; count < 1000; ++count) last = arrive(1);
  EXPECT_EQ(gateway_.errors_of(arrive(1)), Codes{ErrorCode::kQueueFull});
  EXPECT_TRUE(gateway_.errors_of(arrive(2)).empty());
  EXPECT_EQ(gateway_.errors_of(last), Codes{ErrorCode::kQueueFull});
  EXPECT_EQ(gateway_.gateway.counters().queued, 1000u);
  EXPECT_EQ(gateway_.errors.size(), 2u);
}

TEST_F(TenantQueue, ARefusedReserveIsTheFirstOfItsTenantAgain) {
  up();
  const RequestId first = arrive(1);
  const RequestId urgent = arrive(1, -100);
  gateway_.refuse(kD, gateway_.attempt());
  gateway_.advance(std::chrono::seconds(1));
  EXPECT_EQ(gateway_.attempt().request, first);
  EXPECT_EQ(serve(), urgent);
}

class FurtherChoices : public testing::Test {
 protected:
  RequestId add(uint64_t id, uint8_t tenant, size_t prompt_tokens, std::optional<RequestId> leader = {}) {
    GatewayRequest request;
    request.work.request = {BootId{77}, id};
    request.work.prompt.assign(prompt_tokens, TokenId{5});
    request.work.output_tokens_max = 1;
    request.work.tenant.bytes.fill(std::byte{tenant});
    request.work.leader = leader;
    request.queue_until = kUntil;
    return table_.insert(std::move(request)).work.request;
  }
  RequestId start() {
    RunningAttempt running;
    running.attempt.request = table_.queue_head()->work.request;
    table_.find(running.attempt.request)->attempts = 1;
    table_.start_head(running);
    return running.attempt.request;
  }
  static constexpr TimePoint kUntil{std::chrono::hours(1)}, kLater = kUntil + std::chrono::minutes(5);
  RequestTable table_;
};

TEST_F(FurtherChoices, CostWhatTheirLeadersBlocksDoNotHold) {
  const RequestId leader = add(1, 1, 640), other = add(2, 2, 900);
  EXPECT_EQ(start(), leader);
  EXPECT_EQ(start(), other);
  table_.release(leader, {}, kLater);
  for (const uint64_t id : {3, 4}) {
    const RequestId follower = add(id, 1, 640, leader);
    EXPECT_EQ(start(), follower);
  }
  const RequestId next = add(5, 1, 640);
  add(6, 2, 900);
  EXPECT_EQ(start(), next) << "its tenant paid for 640 + 2 x 64 tokens, the other for 900";
}

TEST_F(FurtherChoices, WaitInTheQueueFromWhenTheyCameIntoIt) {
  const RequestId leader = add(1, 1, 640);
  const RequestId follower = add(2, 1, 640, leader);
  start();
  EXPECT_EQ(table_.find(follower)->queue_until, kUntil);
  table_.erase(*table_.find(leader), kLater);
  EXPECT_EQ(table_.find(follower)->queue_until, kLater);
}

}  // namespace
}  // namespace spillway
