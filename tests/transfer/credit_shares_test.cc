#include "transfer/credit_shares.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

namespace spillway {
namespace {

using namespace std::chrono_literals;

constexpr PeerId kA{7}, kB{3}, kC{5};
constexpr TimePoint kStart{std::chrono::hours(1)};

std::vector<Credits> credits(const CreditShares& shares, Credits free) {
  std::vector<Credits> found;
  for (const CreditShares::Share& share : shares.split(free)) found.push_back(share.credits);
  return found;
}

TEST(CreditShares, OneGatewayHasAllThatIsFree) {
  CreditShares shares(64);
  EXPECT_TRUE(shares.split({10, 4}).empty());
  shares.join(kA);
  EXPECT_EQ(credits(shares, {10, 4}), (std::vector<Credits>{{10, 4}}));
  shares.want(kA, 20, kStart);
  EXPECT_EQ(credits(shares, {10, 4}), (std::vector<Credits>{{10, 4}}));
  EXPECT_EQ(credits(shares, {30, 4}), (std::vector<Credits>{{30, 4}}));
}

TEST(CreditShares, SeveralShareEvenlyAndWhatIsLeftOverGoesToTheFirst) {
  CreditShares shares(64);
  for (const PeerId gateway : {kA, kB, kC}) shares.join(gateway);
  EXPECT_EQ(credits(shares, {11, 4}), (std::vector<Credits>{{4, 2}, {4, 1}, {3, 1}}));
  shares.leave(kA);
  EXPECT_EQ(credits(shares, {11, 4}), (std::vector<Credits>{{6, 2}, {5, 2}}));
}

TEST(CreditShares, WantsAreServedInOrderOfArrivalBeforeAllElse) {
  CreditShares shares(64);
  for (const PeerId gateway : {kA, kB, kC}) shares.join(gateway);
  shares.want(kC, 20, kStart);
  shares.want(kB, 5, kStart + 1ms);
  EXPECT_EQ(credits(shares, {12, 3}), (std::vector<Credits>{{0, 1}, {0, 1}, {12, 1}})) << "others get nothing new";
  EXPECT_EQ(credits(shares, {22, 3}), (std::vector<Credits>{{0, 1}, {2, 1}, {20, 1}}));
  EXPECT_EQ(credits(shares, {30, 5}), (std::vector<Credits>{{5, 3}, {5, 1}, {20, 1}}));
  shares.want(kC, 22, kStart + 2ms);  // keeps its place
  EXPECT_EQ(credits(shares, {22, 1}), (std::vector<Credits>{{0, 0}, {0, 0}, {22, 1}}));
  shares.end_want(kC);
  EXPECT_EQ(credits(shares, {15, 3}), (std::vector<Credits>{{5, 1}, {5, 1}, {5, 1}}));
}

TEST(CreditShares, WhereEachWantsTheRestIsSplitToo) {
  CreditShares shares(64);
  for (const PeerId gateway : {kA, kB}) {
    shares.join(gateway);
    shares.want(gateway, 4, kStart);
  }
  EXPECT_EQ(credits(shares, {11, 4}), (std::vector<Credits>{{6, 2}, {5, 2}}));
}

TEST(CreditShares, WhatTheNodeNeverHasIsNoWantAndEndsOne) {
  CreditShares shares(64);
  shares.join(kA);
  shares.want(kA, 65, kStart);
  EXPECT_EQ(shares.next_deadline(), kNever);
  shares.want(kA, 64, kStart);
  EXPECT_EQ(shares.next_deadline(), kStart + kWantLease);
  shares.want(kA, 65, kStart);
  EXPECT_EQ(shares.next_deadline(), kNever);
  shares.want(kB, 3, kStart);  // a stranger
  EXPECT_EQ(shares.next_deadline(), kNever);
  EXPECT_EQ(shares.split({3, 1}).size(), 1u);
}

// A model of what the class must do, in other words: who wants, since when.
struct Model {
  struct Want {
    uint32_t blocks = 0;
    uint64_t since = 0;
    TimePoint said{};
  };
  std::set<PeerId> gateways;
  std::map<PeerId, Want> wants;
  std::optional<std::pair<PeerId, uint32_t>> first() const {
    const auto oldest = std::ranges::min_element(wants, {}, [](const auto& one) { return one.second.since; });
    if (oldest == wants.end()) return std::nullopt;
    return std::pair{oldest->first, oldest->second.blocks};
  }
};

RC_GTEST_PROP(CreditShares, NoTwoPromiseTheSameTheFirstWantIsMetAndNoneStandsForEver, ()) {
  constexpr uint32_t kTotal = 40;
  CreditShares shares(kTotal);
  Model model;
  TimePoint now = kStart;
  for (int event = 1; event <= 60; ++event) {
    const PeerId gateway{*rc::gen::inRange(1u, 6u)};
    const bool known = model.gateways.contains(gateway);
    switch (*rc::gen::inRange(0, 6)) {
      case 0:
        if (!known) shares.join(gateway), model.gateways.insert(gateway);
        break;
      case 1: shares.leave(gateway), model.gateways.erase(gateway), model.wants.erase(gateway); break;
      case 2: shares.end_want(gateway), model.wants.erase(gateway); break;
      case 3: {
        const auto later = std::chrono::milliseconds(*rc::gen::inRange(0, 6000));
        now += later;
        shares.end_due(now);
        std::erase_if(model.wants, [&](const auto& one) { return one.second.said + kWantLease <= now; });
        break;
      }
      default: {
        const uint32_t blocks = *rc::gen::inRange(0u, kTotal + 3);
        shares.want(gateway, blocks, now);
        if (!known) break;
        if (blocks == 0 || blocks > kTotal) {
          model.wants.erase(gateway);
          break;
        }
        Model::Want& want = model.wants[gateway];
        want = {blocks, want.since == 0 ? static_cast<uint64_t>(event) : want.since, now};
      }
    }
    TimePoint earliest = kNever;
    for (const auto& [who, want] : model.wants) earliest = std::min(earliest, want.said + kWantLease);
    RC_ASSERT(shares.next_deadline() == earliest);

    const Credits free{*rc::gen::inRange(0u, kTotal + 1), *rc::gen::inRange(0u, 7u)};
    Credits sum;
    std::map<PeerId, Credits> by;
    for (const CreditShares::Share& share : shares.split(free)) {
      sum.blocks += share.credits.blocks, sum.sequences += share.credits.sequences;
      RC_ASSERT(model.gateways.contains(share.gateway) && by.emplace(share.gateway, share.credits).second);
    }
    RC_ASSERT(by.size() == model.gateways.size());
    if (!by.empty()) RC_ASSERT(sum == free);
    if (const auto first = model.first()) {
      RC_ASSERT(by.at(first->first).blocks >= std::min(free.blocks, first->second));
      RC_ASSERT(by.at(first->first).sequences >= std::min(free.sequences, 1u));
    } else if (!by.empty()) {
      const auto blocks = [](const auto& one) { return one.second.blocks; };
      const auto [least, most] = std::ranges::minmax_element(by, {}, blocks);
      RC_ASSERT(blocks(*most) - blocks(*least) <= 1);
    }
  }
}

}  // namespace
}  // namespace spillway
