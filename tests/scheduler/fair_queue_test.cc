#include "scheduler/fair_queue.h"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <vector>

namespace spillway {
namespace {

constexpr TenantId kA{1}, kB{2};

RequestId id(uint64_t counter) { return {BootId{7}, counter}; }

uint64_t serve(FairQueue& queue) {
  const uint64_t served = queue.head()->counter;
  queue.pop();
  queue.check_conservation();
  return served;
}

TEST(FairQueue, OneRequestWaitsBehindOneOfABurst) {
  FairQueue queue(8);
  for (uint64_t counter = 1; counter <= 1000; ++counter) queue.push({id(counter), kA, 500});
  EXPECT_EQ(serve(queue), 1u);
  queue.push({id(2000), kB, 500});
  EXPECT_EQ(serve(queue), 2000u);
  EXPECT_EQ(serve(queue), 2u);
}

TEST(FairQueue, SharesServiceNotTurns) {
  FairQueue queue(8);
  for (uint64_t counter = 0; counter < 100; ++counter) {
    queue.push({id(counter), kA, 100});
    queue.push({id(1000 + counter), kB, 300});
  }
  std::map<bool, int> turns;
  for (int turn = 0; turn < 80; ++turn) ++turns[serve(queue) >= 1000];
  EXPECT_NEAR(turns[false], 60, 1);
  EXPECT_NEAR(turns[true], 20, 1);
}

TEST(FairQueue, PriorityThenArrivalWithinATenantOnly) {
  FairQueue queue(8);
  queue.push({id(1), kA, 10, 0});
  queue.push({id(2), kA, 10, 5});
  queue.push({id(3), kA, 10, -5});
  queue.push({id(4), kA, 10, 0});
  queue.push({id(5), kB, 10, 100});
  queue.push({id(6), kB, 10, 100});
  std::vector<uint64_t> order;
  while (queue.head()) order.push_back(serve(queue));
  EXPECT_EQ(order, (std::vector<uint64_t>{3, 5, 1, 6, 4, 2}));
}

TEST(FairQueue, ARequeuedOneIsFirstOfItsTenantAndPaysOnce) {
  FairQueue queue(8);
  queue.push({id(1), kA, 100});
  queue.push({id(2), kA, 100, -100});
  queue.push({id(3), kB, 100});
  EXPECT_EQ(serve(queue), 2u);
  queue.requeue({id(2), kA, 100, -100});
  queue.push({id(4), kA, 100, -100});
  EXPECT_EQ(serve(queue), 2u);
  EXPECT_EQ(serve(queue), 3u);
  EXPECT_EQ(serve(queue), 4u);
}

TEST(FairQueue, AWrongGuessIsSetRight) {
  FairQueue queue(8);
  for (uint64_t counter = 1; counter <= 4; ++counter) queue.push({id(counter), kA, 10});
  for (uint64_t counter = 11; counter <= 14; ++counter) queue.push({id(counter), kB, 10});
  EXPECT_EQ(serve(queue), 1u);
  queue.settle(kA, 10, 30);
  EXPECT_EQ(serve(queue), 11u);
  EXPECT_EQ(serve(queue), 12u);
  queue.settle(kB, 20, 5);
  EXPECT_EQ(serve(queue), 13u);
}

TEST(FairQueue, AbsenceSavesNothingUp) {
  FairQueue queue(8);
  queue.push({id(1), kB, 10});
  EXPECT_EQ(serve(queue), 1u);
  for (uint64_t counter = 100; counter < 200; ++counter) queue.push({id(counter), kA, 10});
  for (int turn = 0; turn < 50; ++turn) serve(queue);
  for (uint64_t counter = 300; counter < 400; ++counter) queue.push({id(counter), kB, 10});
  int of_b = 0;
  for (int turn = 0; turn < 20; ++turn) of_b += serve(queue) >= 300 ? 1 : 0;
  EXPECT_NEAR(of_b, 10, 1);
}

TEST(FairQueue, TheLastOfTheTenantWithMostIsTurnedAway) {
  FairQueue queue(8);
  queue.push({id(1), kA, 10});
  queue.push({id(2), kA, 10, 3});
  queue.push({id(3), kA, 10});
  queue.push({id(4), kB, 10});
  EXPECT_EQ(queue.least_deserving(kB), id(2));
  queue.push({id(5), kB, 10});
  queue.push({id(6), kB, 10});
  EXPECT_EQ(queue.least_deserving(kB), id(6));  // as many: the newcomer's tenant
  EXPECT_EQ(queue.least_deserving(kA), id(2));
}

struct Waiting {
  TenantId tenant;
  int32_t priority;
  uint64_t cost;
};

// A tenant that always has something waiting gets no less than another one, but for one request each.
RC_GTEST_PROP(FairQueue, NobodyWhoWaitsGetsLessThanAnotherByMoreThanOneRequest, ()) {
  constexpr uint64_t kCostMax = 50;
  const auto tenants = *rc::gen::inRange(2u, 5u);
  FairQueue queue(4);
  uint64_t next_id = 0;
  std::map<uint64_t, Waiting> waiting;
  std::map<uint32_t, uint64_t> service;
  const auto add = [&](uint32_t tenant) {
    const uint64_t cost = *rc::gen::inRange<uint64_t>(1, kCostMax + 1);
    queue.push({id(++next_id), TenantId{tenant}, cost});
    waiting[next_id] = {TenantId{tenant}, 0, cost};
  };
  for (uint32_t tenant = 0; tenant < tenants; ++tenant) add(tenant), add(tenant);
  for (int turn = 0; turn < 100; ++turn) {
    const Waiting served = waiting.at(queue.head()->counter);
    waiting.erase(queue.head()->counter);
    queue.pop();
    const auto tenant = static_cast<uint32_t>(served.tenant);
    service[tenant] += served.cost;
    add(tenant);
    for (uint32_t a = 0; a < tenants; ++a)
      for (uint32_t b = 0; b < tenants; ++b) RC_ASSERT(service[a] <= service[b] + 2 * kCostMax);
  }
}

RC_GTEST_PROP(FairQueue, EveryRequestIsServedOnceInItsTenantsOrderAndStateIsBounded, ()) {
  constexpr uint32_t kIdleMax = 3;
  FairQueue queue(kIdleMax);
  std::map<uint64_t, Waiting> waiting;
  uint64_t next_id = 0;
  const auto steps = *rc::gen::inRange(1, 200);
  for (int step = 0; step < steps; ++step) {
    const auto kind = *rc::gen::inRange(0, 5);
    if (kind < 2) {
      const Waiting one{TenantId{*rc::gen::inRange<uint64_t>(0, 12)}, *rc::gen::inRange(-2, 3),
                        *rc::gen::inRange<uint64_t>(0, 1000)};
      queue.push({id(++next_id), one.tenant, one.cost, one.priority});
      waiting[next_id] = one;
    } else if (kind == 2 && !waiting.empty()) {
      const uint64_t gone = waiting.begin()->first;
      queue.erase(id(gone));
      waiting.erase(gone);
    } else if (kind == 3) {
      queue.settle(TenantId{*rc::gen::inRange<uint64_t>(0, 12)}, *rc::gen::inRange<uint64_t>(0, 1000),
                   *rc::gen::inRange<uint64_t>(0, 1000));
    } else {
      RC_ASSERT(queue.head().has_value() == !waiting.empty());  // work conservation
      if (waiting.empty()) continue;
      const uint64_t served = queue.head()->counter;
      const Waiting one = waiting.at(served);
      for (const auto& [other, that] : waiting)
        if (that.tenant == one.tenant) RC_ASSERT(std::pair(one.priority, served) <= std::pair(that.priority, other));
      queue.pop();
      waiting.erase(served);
    }
    queue.check_conservation();
    RC_ASSERT(queue.size() == waiting.size());
    RC_ASSERT(queue.tenants() <= waiting.size() + kIdleMax);
  }
}

}  // namespace
}  // namespace spillway
