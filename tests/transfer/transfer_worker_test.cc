#include "transfer/transfer_worker.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>

#include "kv/digest.h"
#include "tests/transfer/kv_arena.h"
#include "transfer/simulated_transport.h"

namespace spillway {
namespace {

constexpr TransferId kTransfer{BootId{9}, 1};
constexpr Epoch kEpoch{4};
constexpr PeerId kSender{1}, kStranger{2}, kVictim{3};
constexpr size_t kPartBytes = 4096;
constexpr TransferWorker::Limits kLimits{4, 1000};

// A receiving worker, and raw transports that can send it whatever they like.
class TransferWorkerTest : public ::testing::Test {
 protected:
  struct Raw {
    std::unique_ptr<KvTransport> transport;
    std::vector<Sent> sent;
    bool lost = false;
  };
  void SetUp() override { start({}); }
  void start(SimulatedFabric::Faults faults) {
    worker_.reset();
    sender_ = {};
    stranger_ = {};
    events_.clear();
    fabric_ = std::make_unique<SimulatedFabric>(1, faults);
    worker_ = std::make_unique<TransferWorker>(fabric_->make_member(), memory_.arena(), kLimits);
    for (auto [raw, peer] : {std::pair{&sender_, kSender}, std::pair{&stranger_, kStranger}}) {
      raw->transport = fabric_->make_member();
      raw->transport->connect(kVictim, worker_->endpoint());
      worker_->submit(ConnectBulk{peer, {raw->transport->endpoint().begin(), raw->transport->endpoint().end()}});
    }
    run();
    ASSERT_EQ(count<BulkReady>(), 2u);
  }
  void run() {
    size_t moved = 1;
    while (moved > 0) {
      moved = worker_->turn(events_);
      for (Raw* const raw : {&sender_, &stranger_}) moved += poll(*raw);
    }
  }
  size_t poll(Raw& raw) {
    std::array<TransportEvent, 8> events;
    const size_t count = raw.transport ? raw.transport->poll(events) : 0;
    for (size_t i = 0; i < count; ++i) {
      if (const auto* const sent = std::get_if<Sent>(&events[i])) raw.sent.push_back(*sent);
      raw.lost = raw.lost || std::holds_alternative<PeerLost>(events[i]);
    }
    return count;
  }
  void open(std::vector<SlotId> slots, uint32_t first_block = 0) {
    worker_->submit(OpenTransfer{kTransfer, kEpoch, kSender, first_block, std::move(slots)});
  }
  FrameHeader header(uint32_t block, LayerRange layers) const {
    std::vector<uint32_t> digests;
    for (size_t i = 0; i < layers.count; ++i)
      digests.push_back(part_digest(std::span(payload_).subspan(i * kPartBytes, kPartBytes)));
    return {
        kTransfer, kEpoch, block, layers, static_cast<uint32_t>(layers.count * kPartBytes), combine_digests(digests)};
  }
  // How the worker answered a frame with this header.
  TransferStatus send(Raw& from, const FrameHeader& frame) {
    from.transport->send(SendId{next_send_++}, kVictim, frame, std::span(payload_).first(frame.bytes));
    const size_t before = from.sent.size();
    run();
    EXPECT_EQ(from.sent.size(), before + 1);
    return from.sent.back().status;
  }
  template <class Event>
  size_t count() const {
    return static_cast<size_t>(std::ranges::count_if(
        events_, [](const TransferEvent& event) { return std::holds_alternative<Event>(event); }));
  }
  template <class Event>
  Event last() const {
    for (auto event = events_.rbegin(); event != events_.rend(); ++event)
      if (const auto* const found = std::get_if<Event>(&*event)) return *found;
    ADD_FAILURE() << "no such event";
    return {};
  }

  TestArena memory_{8};
  std::vector<std::byte> payload_ = std::vector<std::byte>(4 * kPartBytes, std::byte{0x5A});
  std::unique_ptr<SimulatedFabric> fabric_;
  Raw sender_, stranger_;
  std::unique_ptr<TransferWorker> worker_;
  std::vector<TransferEvent> events_;
  uint64_t next_send_ = 0;
};

TEST_F(TransferWorkerTest, PartsLandInTheSlotThatWasNamed) {
  open({SlotId{5}, SlotId{2}}, 10);
  EXPECT_EQ(send(sender_, header(11, {1, 2})), TransferStatus::kOk);
  const auto landed = last<PartsLanded>();
  EXPECT_EQ(landed.transfer, kTransfer);
  EXPECT_EQ(landed.block_index, 11u);
  EXPECT_EQ(landed.layers, (LayerRange{1, 2}));
  EXPECT_TRUE(landed.intact);
  EXPECT_TRUE(std::ranges::equal(memory_.parts(2, {1, 2}), std::span(payload_).first(2 * kPartBytes)));
  EXPECT_EQ(memory_.parts(2, {0, 1})[0], std::byte{});
  EXPECT_TRUE(memory_.untouched(5));
  EXPECT_EQ(worker_->counts().landed, 1u);
}

TEST_F(TransferWorkerTest, StaleEpochNeverLands) {
  open({SlotId{0}});
  for (const Epoch epoch : {Epoch{3}, Epoch{5}}) {
    FrameHeader frame = header(0, {0, 1});
    frame.epoch = epoch;
    EXPECT_EQ(send(sender_, frame), TransferStatus::kRefused);
  }
  EXPECT_TRUE(memory_.untouched(0));
  EXPECT_EQ(count<PartsLanded>(), 0u);
  EXPECT_EQ(worker_->counts().refused_epoch, 2u);
}

TEST_F(TransferWorkerTest, ClosedTransferNeverLands) {
  EXPECT_EQ(send(sender_, header(0, {0, 1})), TransferStatus::kRefused);  // not open yet
  open({SlotId{0}});
  worker_->submit(CloseTransfer{kTransfer, kEpoch});
  EXPECT_EQ(send(sender_, header(0, {0, 1})), TransferStatus::kRefused);
  EXPECT_EQ(count<TransferClosed>(), 1u);
  EXPECT_TRUE(memory_.untouched(0));
  EXPECT_EQ(worker_->counts().refused_transfer, 2u);
  worker_->submit(CloseTransfer{kTransfer, kEpoch});  // every close is answered, also of nothing
  run();
  EXPECT_EQ(count<TransferClosed>(), 2u);
}

TEST_F(TransferWorkerTest, AStaleCloseLeavesTheTransferOpen) {
  open({SlotId{0}});
  worker_->submit(CloseTransfer{kTransfer, Epoch{3}});
  EXPECT_EQ(send(sender_, header(0, {0, 1})), TransferStatus::kOk);
  EXPECT_EQ(last<TransferClosed>().epoch, Epoch{3});
}

TEST_F(TransferWorkerTest, WrongPeerNeverLands) {
  open({SlotId{0}});
  EXPECT_EQ(send(stranger_, header(0, {0, 1})), TransferStatus::kRefused);
  EXPECT_TRUE(memory_.untouched(0));
  EXPECT_EQ(worker_->counts().refused_peer, 1u);
  EXPECT_EQ(send(sender_, header(0, {0, 1})), TransferStatus::kOk);  // the place is still free
}

TEST_F(TransferWorkerTest, AFrameOutsideBlocksLayersOrLengthNeverLands) {
  open({SlotId{0}, SlotId{1}}, 2);
  const std::vector<std::pair<uint32_t, LayerRange>> outside = {
      {1, {0, 1}}, {4, {0, 1}}, {UINT32_MAX, {0, 1}}, {2, {3, 1}}, {2, {2, 2}}, {2, {0, 0}}, {2, {65535, 1}}};
  for (const auto& [block, layers] : outside) EXPECT_EQ(send(sender_, header(block, layers)), TransferStatus::kRefused);
  for (const uint32_t bytes : {0u, 4095u, 8192u}) {
    FrameHeader frame = header(2, {0, 1});
    frame.bytes = bytes;
    EXPECT_EQ(send(sender_, frame), TransferStatus::kRefused);
  }
  FrameHeader huge = header(2, {0, 1});
  huge.layers = {1, 65535};
  EXPECT_EQ(send(sender_, huge), TransferStatus::kRefused);
  EXPECT_TRUE(memory_.untouched(0));
  EXPECT_TRUE(memory_.untouched(1));
  EXPECT_EQ(worker_->counts().refused_shape, outside.size() + 4);
}

TEST_F(TransferWorkerTest, APartLandsOnce) {
  open({SlotId{0}});
  EXPECT_EQ(send(sender_, header(0, {1, 1})), TransferStatus::kOk);
  payload_.assign(payload_.size(), std::byte{0x77});
  EXPECT_EQ(send(sender_, header(0, {1, 1})), TransferStatus::kRefused);
  EXPECT_EQ(send(sender_, header(0, {0, 2})), TransferStatus::kRefused);  // half new is not new
  EXPECT_EQ(memory_.parts(0, {1, 1})[0], std::byte{0x5A});
  EXPECT_EQ(memory_.parts(0, {0, 1})[0], std::byte{});
  EXPECT_EQ(send(sender_, header(0, {0, 1})), TransferStatus::kOk);
  EXPECT_EQ(worker_->counts().refused_doubled, 2u);
  EXPECT_EQ(count<PartsLanded>(), 2u);
}

TEST_F(TransferWorkerTest, AWrongDigestIsReportedOnceAndThePartStaysTaken) {
  open({SlotId{0}});
  FrameHeader frame = header(0, {0, 1});
  frame.digest ^= 1;
  EXPECT_EQ(send(sender_, frame), TransferStatus::kOk);
  EXPECT_FALSE(last<PartsLanded>().intact);
  // A peer that repeats it cannot fill our mailbox.
  EXPECT_EQ(send(sender_, frame), TransferStatus::kRefused);
  EXPECT_EQ(count<PartsLanded>(), 1u);
  EXPECT_EQ(worker_->counts().corrupt, 1u);
}

TEST_F(TransferWorkerTest, BytesChangedOnTheWayAreNotIntact) {
  start({.corrupt = 1.0, .disconnect = 0});
  open({SlotId{0}});
  EXPECT_EQ(send(sender_, header(0, {0, 1})), TransferStatus::kOk);
  EXPECT_FALSE(last<PartsLanded>().intact);
}

TEST_F(TransferWorkerTest, JobsComeBeforeFramesThatArrivedLater) {
  worker_->turn(events_);  // what it looked for before is handled
  open({SlotId{0}});       // posted, then a frame arrives, then the worker runs
  sender_.transport->send(SendId{900}, kVictim, header(0, {0, 1}), std::span(payload_).first(kPartBytes));
  run();
  EXPECT_EQ(sender_.sent.back().status, TransferStatus::kOk);
  // Also when the frame was found by the turn that ran just before the job was posted.
  worker_->submit(CloseTransfer{kTransfer, kEpoch});
  run();
  const TransferId second{BootId{9}, 2};
  FrameHeader frame = header(0, {0, 1});
  frame.transfer = second;
  sender_.transport->send(SendId{901}, kVictim, frame, std::span(payload_).first(kPartBytes));
  worker_->turn(events_);  // finds it
  worker_->submit(OpenTransfer{second, kEpoch, kSender, 0, {SlotId{1}}});
  run();
  EXPECT_EQ(sender_.sent.back().status, TransferStatus::kOk);
}

TEST_F(TransferWorkerTest, ClosedIsAnsweredOnlyAfterTheLastLanding) {
  open({SlotId{0}});
  sender_.transport->send(SendId{900}, kVictim, header(0, {0, 1}), std::span(payload_).first(kPartBytes));
  worker_->turn(events_);  // opens, finds the frame
  worker_->turn(events_);  // accepts it
  ASSERT_EQ(count<PartsLanded>(), 0u);
  worker_->submit(CloseTransfer{kTransfer, kEpoch});
  run();
  ASSERT_EQ(count<PartsLanded>(), 1u);
  ASSERT_EQ(count<TransferClosed>(), 1u);
  EXPECT_TRUE(std::holds_alternative<TransferClosed>(events_.back()));
}

TEST_F(TransferWorkerTest, AFrameFoundWhileClosingIsRefused) {
  open({SlotId{0}, SlotId{1}, SlotId{2}, SlotId{3}, SlotId{4}, SlotId{5}, SlotId{6}});
  constexpr uint32_t kFrames = 20;  // more than one turn takes
  for (uint32_t i = 0; i < kFrames; ++i)
    sender_.transport->send(SendId{900 + i}, kVictim, header(i / 3, {static_cast<uint16_t>(i % 3), 1}),
                            std::span(payload_).first(kPartBytes));
  worker_->turn(events_);  // opens, finds some
  worker_->turn(events_);  // accepts them, finds the rest before they have landed
  worker_->submit(CloseTransfer{kTransfer, kEpoch});
  run();
  EXPECT_EQ(count<TransferClosed>(), 1u);
  EXPECT_TRUE(std::holds_alternative<TransferClosed>(events_.back()));
  EXPECT_GT(worker_->counts().refused_transfer, 0u);
  EXPECT_EQ(count<PartsLanded>() + worker_->counts().refused_transfer, kFrames);
  EXPECT_TRUE(std::ranges::equal(memory_.parts(6, {1, 1}), std::vector<std::byte>(kPartBytes)));
}

TEST_F(TransferWorkerTest, ALostPeerIsToldOnceAndItsSendsEnd) {
  worker_->submit(SendParts{SendId{50}, kSender, kTransfer, kEpoch, 0, SlotId{0}, {0, 1}});
  worker_->turn(events_);
  sender_ = {};
  run();
  EXPECT_EQ(count<BulkLost>(), 1u);
  EXPECT_EQ(last<PartsSent>().status, TransferStatus::kPeerLost);
  worker_->submit(SendParts{SendId{51}, kSender, kTransfer, kEpoch, 0, SlotId{0}, {0, 1}});
  worker_->submit(DisconnectBulk{kSender});
  run();
  EXPECT_EQ(count<PartsSent>(), 2u);
  EXPECT_EQ(last<PartsSent>().send, SendId{51});
  EXPECT_EQ(count<BulkLost>(), 1u);
  worker_->submit(DisconnectBulk{kStranger});
  run();
  EXPECT_EQ(count<BulkLost>(), 2u);
  EXPECT_TRUE(stranger_.lost);
}

TEST_F(TransferWorkerTest, APeerLostJustBeforeASendEndsIt) {
  sender_.transport->disconnect(kVictim);  // the worker has not looked yet
  worker_->submit(SendParts{SendId{60}, kSender, kTransfer, kEpoch, 0, SlotId{0}, {0, 1}});
  run();
  EXPECT_EQ(count<PartsSent>(), 1u);
  EXPECT_EQ(last<PartsSent>().status, TransferStatus::kPeerLost);
  EXPECT_EQ(count<BulkLost>(), 1u);
}

TEST(TransferWorkers, MoreSendsThanTheWindowBeforeTheLinkStandsAllArriveIntact) {
  constexpr uint32_t kBlocks = 100;
  SimulatedFabric fabric(1, {});
  TestArena from(kBlocks), to(kBlocks);
  TransferWorker sender(fabric.make_member(), from.arena(), {1, 1000});
  TransferWorker receiver(fabric.make_member(), to.arena(), {1, 1000});
  const auto bytes = [](std::span<const std::byte> span) { return std::vector(span.begin(), span.end()); };
  std::vector<TransferEvent> sent, landed;
  sender.submit(ConnectBulk{PeerId{1}, bytes(receiver.endpoint())});
  OpenTransfer open{kTransfer, kEpoch, PeerId{2}, 0, {}};
  for (uint32_t block = 0; block < kBlocks; ++block) {
    from.fill(block, 1);
    open.slots.push_back(SlotId{kBlocks - 1 - block});
    sender.submit(SendParts{SendId{block}, PeerId{1}, kTransfer, kEpoch, block, SlotId{block}, {0, 3}});
  }
  sender.turn(sent);
  EXPECT_TRUE(sent.empty());  // nobody there yet
  receiver.submit(ConnectBulk{PeerId{2}, bytes(sender.endpoint())});
  receiver.submit(open);
  while (sender.turn(sent) + receiver.turn(landed) > 0) {
  }
  EXPECT_EQ(sent.size(), kBlocks + 1);    // BulkReady, then a PartsSent each
  EXPECT_EQ(landed.size(), kBlocks + 1);  // BulkReady, then a PartsLanded each
  for (size_t i = 1; i < sent.size(); ++i) EXPECT_EQ(std::get<PartsSent>(sent[i]).status, TransferStatus::kOk);
  for (size_t i = 1; i < landed.size(); ++i) EXPECT_TRUE(std::get<PartsLanded>(landed[i]).intact);
  for (uint32_t block = 0; block < kBlocks; ++block)
    EXPECT_TRUE(std::ranges::equal(from.parts(block, {0, 3}), to.parts(kBlocks - 1 - block, {0, 3})));
}

}  // namespace
}  // namespace spillway
