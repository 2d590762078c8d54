#include "transfer/kv_sender.h"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace spillway {
namespace {

constexpr TransferId kTransfer{BootId{1}, 1};
constexpr Epoch kEpoch{3};
constexpr PeerId kPeer{7}, kOther{8};
constexpr TransferId kOtherTransfer{BootId{1}, 2};
constexpr Duration kAnswerMax = std::chrono::seconds(5), kTick = std::chrono::milliseconds(1);

KvCacheConfig cache_config(uint16_t layers) {
  KvCacheConfig config;
  config.layout = {.layer_count = layers, .kv_heads = 1, .head_dim = 8, .block_tokens = 16};
  config.slot_count = 16;
  return config;
}

using Part = std::pair<uint32_t, uint32_t>;  // block, layer

std::vector<Part> parts_of(const SendParts& job) {
  std::vector<Part> parts;
  for (uint32_t layer = 0; layer < job.layers.count; ++layer)
    parts.emplace_back(job.block_index, job.layers.first + layer);
  return parts;
}

// A cache with `blocks` owned slots and a sender for them.
struct Fixture {
  Fixture(uint16_t layers, uint32_t blocks, uint32_t window, uint32_t layers_per_frame)
      : cache(cache_config(layers)),
        sender({.layer_count = layers,
                .transfers_max = 4,
                .window = window,
                .sends_max = 2 * window,
                .layers_per_frame = layers_per_frame,
                .answer_max = kAnswerMax},
               cache),
        all{0, layers} {
    EXPECT_TRUE(cache.reserve(blocks, owners));
  }
  std::vector<SendParts> plan() {
    std::vector<SendParts> jobs;
    sender.plan(now, jobs);
    sender.check_conservation();
    return jobs;
  }
  void offer(uint32_t block, LayerRange layers) { sender.offer(kTransfer, block, owners[block].slot(), layers); }

  KvCache cache;
  std::vector<SlotPin> owners;
  KvSender sender;
  LayerRange all;
  TimePoint now{std::chrono::seconds(1000)};
};

// Any order of offers (doubled ones too), grant, plans and answers, then what is left.
struct Interleaving {
  uint16_t layers = *rc::gen::inRange<uint16_t>(1, 6);
  uint32_t blocks = *rc::gen::inRange(1u, 6u);
  uint32_t first_block = *rc::gen::inRange(0u, blocks + 1);
  uint32_t window = *rc::gen::inRange(1u, 5u);
  uint32_t layers_per_frame = *rc::gen::inRange(1u, 5u);
  Fixture f{layers, blocks, window, layers_per_frame};
  bool granted = false;
  std::set<Part> offered;
  std::map<Part, int> sent;
  std::vector<SendParts> in_flight;

  void offer(uint32_t block, LayerRange range) {
    f.offer(block, range);
    for (uint32_t layer = 0; layer < range.count; ++layer) offered.emplace(block, range.first + layer);
  }
  void grant() {
    f.sender.grant(kTransfer, kEpoch, kPeer, first_block);
    granted = true;
  }
  void plan() {
    for (const SendParts& job : f.plan()) {
      RC_ASSERT(granted);
      RC_ASSERT(job.to == kPeer && job.transfer == kTransfer && job.epoch == kEpoch);
      RC_ASSERT(job.slot == f.owners[job.block_index].slot());
      RC_ASSERT(job.layers.count >= 1 && job.layers.count <= layers_per_frame);
      RC_ASSERT(f.cache.pool().count(job.slot, PinKind::kReader) > 0u);
      for (const Part& part : parts_of(job)) {
        RC_ASSERT(offered.contains(part));
        ++sent[part];
      }
      in_flight.push_back(job);
    }
    RC_ASSERT(in_flight.size() <= window);
  }
  void answer() {
    if (in_flight.empty()) return;
    const size_t which = *rc::gen::inRange<size_t>(0, in_flight.size());
    const auto outcome = f.sender.on(PartsSent{in_flight[which].send, TransferStatus::kOk});
    RC_ASSERT(outcome && outcome->transfer == kTransfer);
    in_flight.erase(in_flight.begin() + static_cast<std::ptrdiff_t>(which));
  }
  void random_offer() {
    const auto first = *rc::gen::inRange<uint16_t>(0, layers);
    const auto count = *rc::gen::inRange<uint16_t>(1, static_cast<uint16_t>(layers - first + 1));
    offer(*rc::gen::inRange(0u, blocks), {first, count});
  }
  void finish() {
    for (uint32_t block = 0; block < blocks; ++block) offer(block, f.all);
    if (!granted) grant();
    for (plan(); !in_flight.empty(); plan()) answer();
  }
};

TEST(KvSender, EveryWantedPartIsSentExactlyOnceInAnyInterleaving) {
  EXPECT_TRUE(rc::check([] {
    Interleaving run;
    run.f.sender.begin(kTransfer, kEpoch, run.blocks);
    for (int steps = *rc::gen::inRange(0, 60); steps > 0; --steps) {
      RC_ASSERT(!run.f.sender.all_sent(kTransfer) || run.first_block == run.blocks ||
                run.sent.size() == size_t{run.blocks - run.first_block} * run.layers);
      switch (*rc::gen::inRange(0, 4)) {
        case 0: run.random_offer(); break;
        case 1: run.plan(); break;
        case 2: run.answer(); break;
        case 3: run.grant(); break;
      }
    }
    run.finish();
    RC_ASSERT(run.f.sender.all_sent(kTransfer));
    RC_ASSERT(run.sent.size() == size_t{run.blocks - run.first_block} * run.layers);
    for (const auto& [part, times] : run.sent) RC_ASSERT(times == 1 && part.first >= run.first_block);
    for (const SlotPin& owner : run.f.owners) {
      RC_ASSERT(run.f.cache.pool().count(owner.slot(), PinKind::kReader) == 0u);
    }
  }));
}

TEST(KvSender, PinsOfPartsInFlightOutliveTheTransferAndThenReturn) {
  EXPECT_TRUE(rc::check([] {
    Interleaving run;
    run.f.sender.begin(kTransfer, kEpoch, run.blocks);
    for (int steps = *rc::gen::inRange(0, 40); steps > 0; --steps) {
      switch (*rc::gen::inRange(0, 4)) {
        case 0: run.random_offer(); break;
        case 1: run.plan(); break;
        case 2: run.answer(); break;
        case 3: run.grant(); break;
      }
    }
    run.f.sender.end(kTransfer);
    run.f.owners.clear();  // the sequence is closed too: only what the transfer thread reads is still held
    std::set<SlotId> read;
    for (const SendParts& job : run.in_flight) read.insert(job.slot);
    RC_ASSERT(run.f.cache.counts().held == read.size());
    RC_ASSERT(run.f.sender.open_transfers() == 0u && run.f.plan().empty());
    for (const SendParts& job : run.in_flight) RC_ASSERT(!run.f.sender.on(PartsSent{job.send, TransferStatus::kOk}));
    RC_ASSERT(run.f.cache.counts().held == 0u);
    run.f.sender.check_conservation();
  }));
}

TEST(KvSender, NothingLeavesBeforeTheGrant) {
  Fixture f(3, 2, 8, 1);
  f.sender.begin(kTransfer, kEpoch, 2);
  f.offer(0, f.all);
  EXPECT_TRUE(f.plan().empty());
  f.sender.grant(kTransfer, Epoch{2}, kPeer, 0);  // stale
  f.sender.grant(TransferId{BootId{1}, 2}, kEpoch, kPeer, 0);
  EXPECT_TRUE(f.plan().empty());
  f.sender.grant(kTransfer, kEpoch, kPeer, 0);
  EXPECT_EQ(f.plan().size(), 3u);
}

TEST(KvSender, AFullWindowMakesFramesLongerInsteadOfMore) {
  Fixture f(6, 1, 1, 4);
  f.sender.begin(kTransfer, kEpoch, 1);
  f.sender.grant(kTransfer, kEpoch, kPeer, 0);
  f.offer(0, {0, 1});
  const auto first = f.plan();
  ASSERT_EQ(first.size(), 1u);
  EXPECT_EQ(first[0].layers, (LayerRange{0, 1}));
  for (uint16_t layer = 1; layer < 6; ++layer) f.offer(0, {layer, 1});
  EXPECT_TRUE(f.plan().empty());
  f.sender.on(PartsSent{first[0].send, TransferStatus::kOk});
  const auto second = f.plan();
  ASSERT_EQ(second.size(), 1u);
  EXPECT_EQ(second[0].layers, (LayerRange{1, 4}));
}

TEST(KvSender, OlderTransfersGoFirst) {
  Fixture f(1, 2, 1, 1);
  const TransferId younger{BootId{0}, 0};  // smaller id, begun later
  f.sender.begin(kTransfer, kEpoch, 1);
  f.sender.begin(younger, kEpoch, 1);
  f.sender.grant(younger, kEpoch, kPeer, 0);
  f.sender.grant(kTransfer, kEpoch, kPeer, 0);
  f.sender.offer(younger, 0, f.owners[1].slot(), f.all);
  f.offer(0, f.all);
  const auto jobs = f.plan();
  ASSERT_EQ(jobs.size(), 1u);
  EXPECT_EQ(jobs[0].transfer, kTransfer);
}

// Two peers with a transfer of four parts each, all offered and granted; window 2.
struct TwoPeers : Fixture {
  TwoPeers() : Fixture(4, 2, 2, 1) {
    sender.begin(kTransfer, kEpoch, 1);
    sender.begin(kOtherTransfer, kEpoch, 1);
    sender.grant(kTransfer, kEpoch, kPeer, 0);
    sender.grant(kOtherTransfer, kEpoch, kOther, 0);
    offer(0, all);
    sender.offer(kOtherTransfer, 0, owners[1].slot(), all);
  }
  // Answers all sends to kOther as they come, until there are no more.
  void serve_other(std::vector<SendParts> jobs) {
    for (; !jobs.empty(); jobs = plan()) {
      for (const SendParts& job : jobs) {
        EXPECT_EQ(job.to, kOther);
        sender.on(PartsSent{job.send, TransferStatus::kOk});
      }
    }
  }
};

TEST(KvSender, APeerThatAnswersNothingTakesItsOwnWindowOnly) {
  TwoPeers f;
  std::vector<SendParts> jobs = f.plan();
  ASSERT_EQ(jobs.size(), 4u);
  EXPECT_EQ(std::ranges::count(jobs, kPeer, &SendParts::to), 2);
  std::erase_if(jobs, [](const SendParts& job) { return job.to == kPeer; });
  f.serve_other(jobs);
  EXPECT_TRUE(f.sender.all_sent(kOtherTransfer));
  EXPECT_FALSE(f.sender.all_sent(kTransfer));
}

TEST(KvSender, AllPeersTogetherStayInsideTheTotal) {
  Fixture f(4, 3, 2, 1);  // window 2, 4 in all
  for (uint32_t peer = 0; peer < 3; ++peer) {
    const TransferId transfer{BootId{1}, 10 + peer};
    f.sender.begin(transfer, kEpoch, 1);
    f.sender.grant(transfer, kEpoch, PeerId{10 + peer}, 0);
    f.sender.offer(transfer, 0, f.owners[peer].slot(), f.all);
  }
  EXPECT_EQ(f.plan().size(), 4u);
}

TEST(KvSender, ASilentPeerIsGivenUpAtTheLimitAndNotBefore) {
  TwoPeers f;
  const TimePoint sent = f.now;
  std::vector<SendParts> jobs = f.plan();
  std::vector<SendParts> silent;
  std::ranges::copy_if(jobs, std::back_inserter(silent), [](const SendParts& job) { return job.to == kPeer; });
  std::erase_if(jobs, [](const SendParts& job) { return job.to == kPeer; });
  f.now += kAnswerMax / 2;
  f.serve_other(jobs);
  EXPECT_EQ(f.sender.next_deadline(), sent + kAnswerMax);
  EXPECT_TRUE(f.sender.give_up_silent(sent + kAnswerMax - kTick).empty());
  EXPECT_EQ(f.sender.give_up_silent(sent + kAnswerMax), std::vector{kPeer});
  EXPECT_TRUE(f.sender.give_up_silent(sent + 2 * kAnswerMax).empty());  // named once
  EXPECT_EQ(f.sender.next_deadline(), kNever);

  f.sender.on(PartsSent{silent[0].send, TransferStatus::kPeerLost});
  EXPECT_TRUE(f.plan().empty());  // the other one may still be read
  f.sender.on(PartsSent{silent[1].send, TransferStatus::kPeerLost});
  f.sender.end(kTransfer);
  const TransferId later{BootId{1}, 3};  // over a new link to the same peer
  f.sender.begin(later, kEpoch, 1);
  f.sender.grant(later, kEpoch, kPeer, 0);
  f.sender.offer(later, 0, f.owners[0].slot(), f.all);
  EXPECT_EQ(f.plan().size(), 2u);
  EXPECT_EQ(f.sender.next_deadline(), f.now + kAnswerMax);
}

TEST(KvSender, AnAnswerStartsTheNextSendsLimit) {
  TwoPeers f;
  f.sender.end(kOtherTransfer);
  const std::vector<SendParts> first = f.plan();
  f.now += kAnswerMax - kTick;
  for (const SendParts& job : first) f.sender.on(PartsSent{job.send, TransferStatus::kOk});
  EXPECT_EQ(f.plan().size(), 2u);
  EXPECT_TRUE(f.sender.give_up_silent(f.now + kTick).empty());
  EXPECT_EQ(f.sender.next_deadline(), f.now + kAnswerMax);
}

TEST(KvSender, AFailedSendIsReportedAndNeverCountsAsSent) {
  Fixture f(1, 1, 2, 1);
  f.sender.begin(kTransfer, kEpoch, 1);
  f.sender.grant(kTransfer, kEpoch, kPeer, 0);
  f.offer(0, f.all);
  const auto jobs = f.plan();
  ASSERT_EQ(jobs.size(), 1u);
  const auto outcome = f.sender.on(PartsSent{jobs[0].send, TransferStatus::kPeerLost});
  ASSERT_TRUE(outcome);
  EXPECT_EQ(outcome->status, TransferStatus::kPeerLost);
  EXPECT_FALSE(f.sender.all_sent(kTransfer));
  EXPECT_TRUE(f.plan().empty());
}

TEST(KvSender, AnAnswerOfAnEndedTransferDoesNotReachItsNamesake) {
  Fixture f(1, 1, 2, 1);
  f.sender.begin(kTransfer, kEpoch, 1);
  f.sender.grant(kTransfer, kEpoch, kPeer, 0);
  f.offer(0, f.all);
  const auto jobs = f.plan();
  ASSERT_EQ(jobs.size(), 1u);
  f.sender.end(kTransfer);
  f.sender.begin(kTransfer, Epoch{4}, 1);
  f.sender.grant(kTransfer, Epoch{4}, kPeer, 0);
  EXPECT_FALSE(f.sender.on(PartsSent{jobs[0].send, TransferStatus::kOk}));
  EXPECT_FALSE(f.sender.all_sent(kTransfer));
}

TEST(KvSender, NothingIsLeftToSendWhereTheReceiverHoldsEveryBlock) {
  Fixture f(2, 2, 2, 1);
  f.sender.begin(kTransfer, kEpoch, 2);
  f.offer(0, f.all);
  f.sender.grant(kTransfer, kEpoch, kPeer, 2);
  f.offer(1, f.all);
  EXPECT_TRUE(f.plan().empty());
  EXPECT_TRUE(f.sender.all_sent(kTransfer));
  EXPECT_EQ(f.cache.pool().count(f.owners[0].slot(), PinKind::kReader), 0u);
}

}  // namespace
}  // namespace spillway
