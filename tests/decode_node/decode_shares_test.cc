// A decode node between several gateways: what it tells each, and who comes first.
#include <gtest/gtest.h>

#include <map>

#include "tests/decode_node/decode_script.h"

namespace spillway::script {
namespace {

constexpr PeerId kSecond{50};

struct TwoGateways : DecodeScript {
  explicit TwoGateways(const Options& options = {.requests_max = 8, .transfers_max = 16}) : DecodeScript(options) {
    connect();
    on(PeerUp{kSecond, hello(Role::kGateway, BootId{51})});
  }
  // The last each was told.
  Credits share(PeerId gateway) const {
    Credits found;
    for (const auto& [to, load] : loads)
      if (to == gateway) found = {load.blocks_share, load.sequences_share};
    return found;
  }
  void reserve_from(PeerId gateway, uint64_t request, uint32_t prompt_tokens) {
    from(gateway, Reserve{work(attempt(request), prompt_tokens, 1), kPrefillBoot});
  }
};

TEST(DecodeShares, WhatIsFreeIsSplitAmongGatewaysAndGivenBackWhenOneGoes) {
  TwoGateways d;
  EXPECT_EQ(d.share(kGateway), (Credits{32, 4}));
  EXPECT_EQ(d.share(kSecond), (Credits{32, 4}));
  d.reserve_from(kSecond, 1, 3 * kBlockTokens);
  EXPECT_EQ(d.share(kGateway), (Credits{31, 4}));
  EXPECT_EQ(d.share(kSecond), (Credits{30, 3}));
  d.on(PeerGone{kGateway, "killed"});
  EXPECT_EQ(d.share(kSecond), (Credits{61, 7}));
}

TEST(DecodeShares, EachHearsWhichOfItsOwnReservesALoadCounts) {
  TwoGateways d;
  d.reserve_from(kGateway, 1, kBlockTokens);
  d.reserve_from(kSecond, 2, kBlockTokens);
  std::map<PeerId, uint64_t> newest;
  for (const auto& [to, load] : d.loads) newest[to] = load.newest_transfer;
  EXPECT_EQ(newest[kGateway], attempt(1).transfer.counter);
  EXPECT_EQ(newest[kSecond], attempt(2).transfer.counter);
}

TEST(DecodeShares, AWantIsMetOnceEnoughIsFreeAndMeanwhileOthersGetNothing) {
  TwoGateways d({.slots = 30, .requests_max = 8, .transfers_max = 16});
  d.reserve_from(kGateway, 1, 10 * kBlockTokens);
  d.reserve_from(kGateway, 2, 10 * kBlockTokens);
  d.from(kSecond, Want{15});
  EXPECT_EQ(d.share(kSecond), (Credits{10, 1}));
  EXPECT_EQ(d.share(kGateway), (Credits{0, 5}));
  d.from(kGateway, Want{20});
  d.from(kGateway, Cancel{attempt(1)});
  d.answer_closes();
  EXPECT_EQ(d.share(kSecond), (Credits{15, 3}));
  EXPECT_EQ(d.share(kGateway), (Credits{5, 4})) << "the next in line has what is left";
  d.reserve_from(kSecond, 3, 15 * kBlockTokens);
  EXPECT_TRUE(d.sent<Failed>().empty());
  EXPECT_EQ(d.share(kSecond), (Credits{0, 5})) << "its want is met";
  EXPECT_EQ(d.share(kGateway), (Credits{5, 1}));
}

TEST(DecodeShares, ARefusedReserveLeavesTheWantItsPlace) {
  TwoGateways d({.slots = 30, .requests_max = 8, .transfers_max = 16});
  d.reserve_from(kGateway, 1, 16 * kBlockTokens);
  d.from(kSecond, Want{15});
  d.reserve_from(kSecond, 2, 15 * kBlockTokens);  // more than it was told
  ASSERT_EQ(d.sent<Failed>().size(), 2u);
  EXPECT_EQ(d.sent<Failed>()[0].second.code, ErrorCode::kNoSpace);
  EXPECT_EQ(d.share(kSecond), (Credits{14, 1}));
  EXPECT_EQ(d.share(kGateway).blocks, 0u);
}

TEST(DecodeShares, AWantEndsByItsWithdrawalItsGatewayOrItsLease) {
  TwoGateways d;
  d.from(kSecond, Want{60});
  EXPECT_EQ(d.share(kGateway).blocks, 4u);
  d.from(kSecond, Want{0});
  EXPECT_EQ(d.share(kGateway).blocks, 32u);
  d.from(kSecond, Want{60});
  EXPECT_EQ(d.node.next_deadline(), d.now + kWantLease);
  d.pass(kWantLease - kMs);
  d.from(kSecond, Want{60});
  d.pass(kWantLease - kMs);
  EXPECT_EQ(d.share(kGateway).blocks, 4u);
  d.pass(kMs);
  EXPECT_EQ(d.share(kGateway).blocks, 32u);
  d.from(kSecond, Want{60});
  d.on(PeerGone{kSecond, "killed"});
  EXPECT_EQ(d.share(kGateway).blocks, 64u);
  d.from(kPrefillPeer, Want{60});  // not a gateway
  EXPECT_EQ(d.share(kGateway).blocks, 64u);
}

TEST(DecodeShares, ManyMayRunOnlyWhereTheNodeTakesThem) {
  TwoGateways d({.requests_max = 3, .transfers_max = 16});
  EXPECT_EQ(d.share(kGateway).sequences + d.share(kSecond).sequences, 3u);
}

}  // namespace
}  // namespace spillway::script
