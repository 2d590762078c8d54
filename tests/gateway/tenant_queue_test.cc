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

}  // namespace
}  // namespace spillway
