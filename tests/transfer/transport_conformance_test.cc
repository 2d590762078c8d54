#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <map>

#include "tests/transfer/transport_pair.h"

namespace spillway {
namespace {

constexpr PeerId kToB{11}, kToA{22};

class TransportConformance : public ::testing::TestWithParam<TransportKind> {
 protected:
  void make(size_t ring_bytes = 1 << 16, SimulatedFabric::Faults faults = {}) {
    maker_ = std::make_unique<TransportMaker>(GetParam(), ring_bytes, faults);
    a_.transport = maker_->make();
    b_.transport = maker_->make();
  }
  void connect() {
    a_.transport->connect(kToB, b_.transport->endpoint());
    b_.transport->connect(kToA, a_.transport->endpoint());
    ASSERT_TRUE(run([&] { return a_.all<PeerReady>().size() == 1 && b_.all<PeerReady>().size() == 1; }));
    EXPECT_EQ(a_.all<PeerReady>()[0].peer, kToB);
    EXPECT_EQ(b_.all<PeerReady>()[0].peer, kToA);
  }
  bool run(const std::function<bool()>& done) { return run_until({&a_, &b_}, done); }
  // Accepts the newest arrivals at `end` from index `from` on into fresh memory.
  std::vector<std::byte>& accept(TransportEnd& end, const Arrived& arrived) {
    std::vector<std::byte>& memory = landed_[static_cast<uint64_t>(arrived.arrival)];
    memory.assign(arrived.header.bytes, std::byte{0xEE});
    end.transport->accept(arrived.arrival, memory, std::max<size_t>(memory.size(), 1));
    return memory;
  }

  std::unique_ptr<TransportMaker> maker_;  // outlives its members
  TransportEnd a_, b_;
  std::map<uint64_t, std::vector<std::byte>> landed_;
  std::mt19937_64 random_{1};
};

TEST_P(TransportConformance, FramesArriveInOrderWithTheirBytesAndDigests) {
  make();
  connect();
  const std::vector<size_t> sizes = {0, 1, 64, 4096, 4097, 8192, 1, 0, 12288, 63};
  std::vector<std::vector<std::byte>> payloads;
  for (const size_t size : sizes) payloads.push_back(random_bytes(random_, size));
  for (size_t i = 0; i < sizes.size(); ++i)
    a_.transport->send(SendId{100 + i}, kToB, header_of(i, payloads[i]), payloads[i]);
  ASSERT_TRUE(run([&] { return b_.all<Arrived>().size() == sizes.size(); }));
  for (size_t i = 0; i < sizes.size(); ++i) {
    const Arrived arrived = b_.all<Arrived>()[i];
    EXPECT_EQ(arrived.peer, kToA);
    EXPECT_EQ(arrived.header, header_of(i, payloads[i]));
    if (sizes[i] == 0) {
      b_.transport->refuse(arrived.arrival);
    } else {
      EXPECT_EQ(accept(b_, arrived), payloads[i]);
    }
  }
  ASSERT_TRUE(run([&] { return a_.all<Sent>().size() == sizes.size() && b_.all<Landed>().size() == 8; }));
  for (size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_EQ(a_.all<Sent>()[i].send, SendId{100 + i});
    EXPECT_EQ(a_.all<Sent>()[i].status, sizes[i] == 0 ? TransferStatus::kRefused : TransferStatus::kOk);
  }
  for (const Landed& landed : b_.all<Landed>()) {
    EXPECT_EQ(landed.status, TransferStatus::kOk);
    const auto arrived = b_.all<Arrived>();
    const auto same = std::ranges::find(arrived, landed.arrival, &Arrived::arrival);
    EXPECT_EQ(landed.digest, same->header.digest);
  }
}

TEST_P(TransportConformance, NothingLandsBeforeAccept) {
  make();
  connect();
  const auto payload = random_bytes(random_, 4096);
  a_.transport->send(SendId{1}, kToB, header_of(0, payload), payload);
  ASSERT_TRUE(run([&] { return b_.all<Arrived>().size() == 1; }));
  for (int i = 0; i < 10; ++i) {
    a_.poll();
    b_.poll();
  }
  EXPECT_TRUE(b_.all<Landed>().empty());
  EXPECT_TRUE(a_.all<Sent>().empty());
}

TEST_P(TransportConformance, SeveralPartsAreDigestedApart) {
  make();
  connect();
  const auto payload = random_bytes(random_, 3 * 4096);
  FrameHeader header = header_of(0, payload);
  std::array<uint32_t, 3> digests{};
  for (size_t i = 0; i < 3; ++i) digests[i] = part_digest(std::span(payload).subspan(i * 4096, 4096));
  header.digest = combine_digests(digests);
  a_.transport->send(SendId{1}, kToB, header, payload);
  ASSERT_TRUE(run([&] { return b_.all<Arrived>().size() == 1; }));
  std::vector<std::byte> memory(payload.size());
  b_.transport->accept(b_.all<Arrived>()[0].arrival, memory, 4096);
  ASSERT_TRUE(run([&] { return b_.all<Landed>().size() == 1; }));
  EXPECT_EQ(b_.all<Landed>()[0].digest, header.digest);
  EXPECT_EQ(memory, payload);
}

TEST_P(TransportConformance, AnswersOutOfOrderReachTheRightSend) {
  make();
  connect();
  std::vector<std::vector<std::byte>> payloads;
  for (size_t i = 0; i < 3; ++i) payloads.push_back(random_bytes(random_, 4096));
  for (size_t i = 0; i < 3; ++i) a_.transport->send(SendId{i}, kToB, header_of(i, payloads[i]), payloads[i]);
  ASSERT_TRUE(run([&] { return b_.all<Arrived>().size() == 3; }));
  const auto arrived = b_.all<Arrived>();
  EXPECT_EQ(accept(b_, arrived[2]), payloads[2]);
  b_.transport->refuse(arrived[1].arrival);
  EXPECT_EQ(accept(b_, arrived[0]), payloads[0]);
  ASSERT_TRUE(run([&] { return a_.all<Sent>().size() == 3; }));
  for (const Sent& sent : a_.all<Sent>())
    EXPECT_EQ(sent.status, sent.send == SendId{1} ? TransferStatus::kRefused : TransferStatus::kOk);
}

TEST_P(TransportConformance, RandomSizesBothWaysKeepEveryByte) {
  make();
  connect();
  struct Way {
    TransportEnd &from, &to;
    PeerId peer;
    size_t sent = 0, seen = 0;
    std::vector<std::vector<std::byte>> payloads;
  };
  constexpr size_t kFrames = 400;
  std::array<Way, 2> ways = {Way{a_, b_, kToB, 0, 0, {}}, Way{b_, a_, kToA, 0, 0, {}}};
  for (Way& way : ways)
    for (size_t i = 0; i < kFrames; ++i)
      // Now and then a frame that fills the ring to its last byte, or leaves exactly nothing before its end.
      way.payloads.push_back(random_bytes(random_, i % 50 == 49 ? (1 << 16) - 128 : 1 + random_() % 20000));
  ASSERT_TRUE(run([&] {
    bool all = true;
    for (Way& way : ways) {
      while (way.sent < kFrames && way.sent - way.from.all<Sent>().size() < way.from.transport->window()) {
        way.from.transport->send(SendId{way.sent}, way.peer, header_of(way.sent, way.payloads[way.sent]),
                                 way.payloads[way.sent]);
        ++way.sent;
      }
      for (const Arrived& arrived : way.to.all<Arrived>()) {
        if (arrived.header.block_index < way.seen) continue;
        EXPECT_EQ(arrived.header.block_index, way.seen);
        std::vector<std::byte> memory(arrived.header.bytes);
        way.to.transport->accept(arrived.arrival, memory, memory.size());
        EXPECT_EQ(memory, way.payloads[way.seen]);
        ++way.seen;
      }
      all = all && way.from.all<Sent>().size() == kFrames;
    }
    return all;
  }));
  for (const Way& way : ways) {
    for (const Sent& sent : way.from.all<Sent>()) EXPECT_EQ(sent.status, TransferStatus::kOk);
    for (const Landed& landed : way.to.all<Landed>()) EXPECT_EQ(landed.status, TransferStatus::kOk);
  }
}

TEST_P(TransportConformance, AFullWindowWaitsForAnswers) {
  make();
  connect();
  const auto payload = random_bytes(random_, 8192);  // 64 of them are eight times the ring
  const uint32_t window = a_.transport->window();
  for (uint32_t i = 0; i < window; ++i) a_.transport->send(SendId{i}, kToB, header_of(i, payload), payload);
  EXPECT_DEATH(a_.transport->send(SendId{window}, kToB, header_of(window, payload), payload), "CHECK failed");
  size_t seen = 0;
  ASSERT_TRUE(run([&] {
    const auto arrived = b_.all<Arrived>();
    for (; seen < arrived.size(); ++seen) accept(b_, arrived[seen]);
    return a_.all<Sent>().size() == window;
  }));
  EXPECT_EQ(seen, window);
}

TEST_P(TransportConformance, DisconnectEndsEverySendAndEveryAccept) {
  make();
  connect();
  const auto payload = random_bytes(random_, 8192);
  for (uint32_t i = 0; i < 20; ++i) a_.transport->send(SendId{i}, kToB, header_of(i, payload), payload);
  ASSERT_TRUE(run([&] { return b_.all<Arrived>().size() >= 3; }));
  const auto arrived = b_.all<Arrived>();
  accept(b_, arrived[0]);
  b_.transport->disconnect(kToA);
  std::vector<std::byte> late(payload.size(), std::byte{0xEE});
  b_.transport->accept(arrived[1].arrival, late, late.size());  // arrived before, accepted after
  b_.transport->refuse(arrived[2].arrival);
  ASSERT_TRUE(run([&] {
    return a_.all<PeerLost>().size() == 1 && b_.all<PeerLost>().size() == 1 && a_.all<Sent>().size() == 20 &&
           b_.all<Landed>().size() == 2;
  }));
  EXPECT_TRUE(std::ranges::all_of(late, [](std::byte byte) { return byte == std::byte{0xEE}; }));
  EXPECT_EQ(b_.all<Landed>()[1].status, TransferStatus::kPeerLost);
  EXPECT_EQ(a_.all<Sent>().back().status, TransferStatus::kPeerLost);
  EXPECT_TRUE(std::holds_alternative<PeerLost>(a_.events.back()));
  a_.transport->send(SendId{99}, kToB, header_of(99, payload), payload);
  ASSERT_TRUE(run([&] { return a_.all<Sent>().size() == 21; }));
  EXPECT_EQ(a_.all<Sent>().back().status, TransferStatus::kPeerLost);
  b_.transport->disconnect(kToA);  // a second time is nothing
  EXPECT_EQ(b_.poll(), 0u);
}

TEST_P(TransportConformance, ADeadPeerEndsEverySendAndANewOneIsReached) {
  make();
  connect();
  const auto payload = random_bytes(random_, 8192);
  for (uint32_t i = 0; i < 20; ++i) a_.transport->send(SendId{i}, kToB, header_of(i, payload), payload);
  b_.transport.reset();
  ASSERT_TRUE(run_until({&a_}, [&] { return a_.all<PeerLost>().size() == 1 && a_.all<Sent>().size() == 20; }));
  for (const Sent& sent : a_.all<Sent>()) EXPECT_EQ(sent.status, TransferStatus::kPeerLost);
  b_ = {};
  a_.events.clear();
  b_.transport = maker_->make();
  a_.transport->connect(PeerId{12}, b_.transport->endpoint());
  b_.transport->connect(PeerId{23}, a_.transport->endpoint());
  EXPECT_TRUE(run([&] { return a_.all<PeerReady>().size() == 1 && b_.all<PeerReady>().size() == 1; }));
}

TEST_P(TransportConformance, TheSamePeerIsReachedAgainAfterDisconnect) {
  make();
  connect();
  a_.transport->disconnect(kToB);
  ASSERT_TRUE(run([&] { return a_.all<PeerLost>().size() == 1 && b_.all<PeerLost>().size() == 1; }));
  a_.events.clear();
  b_.events.clear();
  b_.transport->connect(PeerId{23}, a_.transport->endpoint());
  a_.transport->connect(PeerId{12}, b_.transport->endpoint());
  ASSERT_TRUE(run([&] { return a_.all<PeerReady>().size() == 1 && b_.all<PeerReady>().size() == 1; }));
  const auto payload = random_bytes(random_, 100);
  b_.transport->send(SendId{5}, PeerId{23}, header_of(0, payload), payload);
  ASSERT_TRUE(run([&] { return a_.all<Arrived>().size() == 1; }));
  EXPECT_EQ(accept(a_, a_.all<Arrived>()[0]), payload);
  EXPECT_TRUE(run([&] { return b_.all<Sent>().size() == 1; }));
}

TEST_P(TransportConformance, AnEndpointOfNobodyIsLost) {
  make();
  const std::vector<std::byte> nonsense(10, std::byte{1});
  a_.transport->connect(PeerId{1}, nonsense);
  a_.transport->connect(PeerId{2}, {});
  a_.transport->connect(PeerId{3}, a_.transport->endpoint());  // itself
  const std::vector<std::byte> gone(b_.transport->endpoint().begin(), b_.transport->endpoint().end());
  b_.transport.reset();
  a_.transport->connect(PeerId{4}, gone);
  ASSERT_TRUE(run_until({&a_}, [&] { return a_.all<PeerLost>().size() == 4; }));
  EXPECT_TRUE(a_.all<PeerReady>().empty());
}

INSTANTIATE_TEST_SUITE_P(Kinds, TransportConformance, ::testing::Values(TransportKind::kShm, TransportKind::kSimulated),
                         [](const auto& parameter) {
                           return parameter.param == TransportKind::kShm ? "shm" : "simulated";
                         });

// What two members of a fabric with these faults say about sixty sends; the receiver accepts all.
std::vector<std::string> simulated_run(uint64_t seed, SimulatedFabric::Faults faults) {
  SimulatedFabric fabric(seed, faults);
  TransportEnd a{fabric.make_member(), {}}, b{fabric.make_member(), {}};
  std::vector<std::byte> payload(4096, std::byte{1}), memory(payload.size());
  std::vector<std::string> said;
  for (uint32_t i = 0; i < 60; ++i) {
    if (i % 20 == 0) {
      a.transport->connect(PeerId{i}, b.transport->endpoint());
      b.transport->connect(PeerId{i}, a.transport->endpoint());
    }
    a.transport->send(SendId{i}, PeerId{i / 20 * 20}, header_of(i, payload), payload);
    a.events.clear();
    b.events.clear();
    run_until({&a, &b}, [] { return false; });
    for (const Arrived& arrived : b.all<Arrived>()) b.transport->accept(arrived.arrival, memory, memory.size());
    run_until({&a, &b}, [] { return false; });
    for (const Sent& sent : a.all<Sent>()) said.push_back(sent.status == TransferStatus::kOk ? "sent" : "lost");
    for (const Landed& landed : b.all<Landed>())
      said.push_back(landed.digest == header_of(i, payload).digest ? "whole" : "corrupt");
    if (i % 20 == 19) a.transport->disconnect(PeerId{i / 20 * 20});
    run_until({&a, &b}, [] { return false; });
  }
  return said;
}

TEST(SimulatedTransport, FaultsComeAsOftenAsAskedAndTheSameForASeed) {
  const auto count = [](const std::vector<std::string>& said, const char* what) {
    return std::ranges::count(said, what);
  };
  const auto clean = simulated_run(1, {});
  EXPECT_EQ(count(clean, "whole"), 60);
  EXPECT_EQ(count(clean, "sent"), 60);
  const auto corrupt = simulated_run(1, {.corrupt = 0.5, .disconnect = 0});
  EXPECT_GT(count(corrupt, "corrupt"), 15);
  EXPECT_GT(count(corrupt, "whole"), 15);
  EXPECT_EQ(count(simulated_run(1, {.corrupt = 0, .disconnect = 1}), "lost"), 60);
  EXPECT_EQ(corrupt, simulated_run(1, {.corrupt = 0.5, .disconnect = 0}));
  EXPECT_NE(corrupt, simulated_run(2, {.corrupt = 0.5, .disconnect = 0}));
}

}  // namespace
}  // namespace spillway
