#include "transfer/shm_transport.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "tests/transfer/transport_pair.h"
#include "transfer/shm_handshake.h"
#include "transfer/shm_ring.h"

namespace spillway {
namespace {

constexpr size_t kRingBytes = 1 << 14;
constexpr size_t kFrameBytesMax = 5000;
constexpr int kAllSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

UniqueFd memfd(size_t bytes, int seals) {
  UniqueFd fd(::memfd_create("test", MFD_ALLOW_SEALING | MFD_CLOEXEC));
  CHECK(fd && ::ftruncate(fd.get(), static_cast<off_t>(bytes)) == 0);
  if (seals != 0) CHECK(::fcntl(fd.get(), F_ADD_SEALS, seals) == 0);
  return fd;
}

TEST(ShmRing, OnlyASealedMemfdOfASaneSizeIsMapped) {
  EXPECT_TRUE(ShmReader::map(memfd(3 * kPageBytes, kAllSeals).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(3 * kPageBytes, 0).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(3 * kPageBytes, F_SEAL_GROW | F_SEAL_SEAL).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(3 * kPageBytes, F_SEAL_SHRINK | F_SEAL_GROW).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(kPageBytes, kAllSeals).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(0, kAllSeals).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(3 * kPageBytes + 1, kAllSeals).get(), 64).has_value());
  EXPECT_FALSE(ShmReader::map(memfd(kShmRingBytesMax + 2 * kPageBytes, kAllSeals).get(), 64).has_value());
  const UniqueFd file(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
  EXPECT_EQ(ShmReader::map(file.get(), 64).error().code, ErrorCode::kCorrupt);
  EXPECT_FALSE(ShmReader::map(-1, 64).has_value());
}

TEST(ShmRing, ARingForFramesHoldsEightOfThem) {
  for (const size_t frame_bytes : {size_t{1}, size_t{8} * 48 << 10, size_t{2} << 20, (size_t{3} << 20) + 1}) {
    Result<ShmWriter> writer = ShmWriter::make(ring_bytes_for(frame_bytes));
    const std::vector<std::byte> frame(frame_bytes);
    for (uint64_t i = 0; i < 8; ++i) {
      ASSERT_TRUE(writer->has_room(frame_bytes)) << frame_bytes << " bytes, frame " << i;
      writer->write(SendId{i}, header_of(i, frame), frame);
    }
  }
  EXPECT_EQ(ring_bytes_for(size_t{1} << 30), kShmRingBytesMax);
}

TEST(ShmRing, FramesThatEndExactlyAtTheRingsEndAreFollowedByOthers) {
  Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
  Result<ShmReader> reader = ShmReader::map(writer->fd(), kRingBytes);
  std::mt19937_64 random(3);
  // 64 bytes of header each: half the ring less one header fills it with two frames to the last byte.
  const auto half = random_bytes(random, kRingBytes / 2 - kShmFrameHeaderBytes);
  for (uint64_t round = 0; round < 9; ++round) {
    writer->write(SendId{round}, header_of(round, half), half);
    EXPECT_EQ(writer->has_room(half.size()), round % 2 == 0);
    EXPECT_EQ(writer->has_room(0), round % 2 == 0);
    if (round % 2 == 0) continue;
    for (uint64_t sequence = round - 1; sequence <= round; ++sequence) {
      ASSERT_TRUE(reader->next_frame().value().has_value());
      std::vector<std::byte> memory(half.size());
      reader->copy_out(sequence, memory, memory.size());
      EXPECT_EQ(memory, half);
      reader->answer(sequence, TransferStatus::kOk);
      EXPECT_EQ(writer->next_answer().value()->id, SendId{sequence});
    }
  }
}

TEST(ShmRing, AWriterThatScribblesNeverMovesTheReaderOutOfTheRing) {
  std::mt19937_64 random(11);
  size_t refused = 0, copied = 0;
  for (int round = 0; round < 300; ++round) {
    Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
    Result<ShmReader> reader = ShmReader::map(writer->fd(), kFrameBytesMax);
    Result<ShmMapping> shared = ShmMapping::map(writer->fd());
    ASSERT_TRUE(writer && reader && shared);
    const auto payload = random_bytes(random, 3000);
    for (uint64_t step = 0; step < 40; ++step) {
      if (writer->has_room(payload.size())) writer->write(SendId{step}, header_of(step, payload), payload);
      if (step % 8 == 3) {
        const std::span<std::byte> words = shared->at(random() % (kRingBytes / 8) * 8, 8);
        const uint64_t value = random() % 3 == 0 ? random() : random() % (2 * kRingBytes);
        std::memcpy(words.data(), &value, sizeof value);
      }
      if (step % 16 == 7) shared->control().published.fetch_add(random() % 4 == 0 ? random() : random() % 3);
      const uint64_t sequence = reader->taken();
      const Result<std::optional<FrameHeader>> frame = reader->next_frame();
      if (!frame) {
        EXPECT_EQ(frame.error().code, ErrorCode::kCorrupt);
        ++refused;
        break;
      }
      if (!*frame) continue;
      ASSERT_LE((*frame)->bytes, kFrameBytesMax);
      std::vector<std::byte> memory((*frame)->bytes);
      if (!memory.empty()) reader->copy_out(sequence, memory, memory.size());
      reader->answer(sequence, TransferStatus::kOk);
      ++copied;
      if (!writer->next_answer()) break;
    }
  }
  EXPECT_GT(refused, 100u);
  EXPECT_GT(copied, 1000u);
}

TEST(ShmRing, AFrameAboveTheBoundIsRefused) {
  Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
  Result<ShmReader> reader = ShmReader::map(writer->fd(), kFrameBytesMax);
  for (const size_t size : {kFrameBytesMax, kFrameBytesMax + 1}) {
    const std::vector<std::byte> payload(size);
    writer->write(SendId{size}, header_of(1, payload), payload);
    EXPECT_EQ(reader->next_frame().has_value(), size == kFrameBytesMax);
  }
}

TEST(ShmRing, AReaderThatLiesAboutAnswersIsDropped) {
  const auto answered_with = [](uint64_t answered, uint8_t status) {
    Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
    const std::vector<std::byte> payload(100);
    writer->write(SendId{1}, header_of(1, payload), payload);
    writer->control().answers[0] = status;
    writer->control().answered = answered;
    return writer->next_answer().has_value();
  };
  EXPECT_TRUE(answered_with(0, 9));
  EXPECT_TRUE(answered_with(1, 0));
  EXPECT_TRUE(answered_with(1, 1));
  EXPECT_FALSE(answered_with(1, 2));  // only this side may say that the peer is lost
  EXPECT_FALSE(answered_with(1, 255));
  EXPECT_FALSE(answered_with(2, 0));
  EXPECT_FALSE(answered_with(UINT64_MAX, 0));
}

// A transport, and a peer that speaks the handshake by hand.
class ShmTransportTest : public ::testing::Test {
 protected:
  ShmTransportTest() {
    end_.transport = make_shm_transport(config());
    hostile_bytes_ = ShmEndpoint{{}, "/nowhere"}.bytes();  // the lowest token: it dials
    victim_ = *ShmEndpoint::parse(end_.transport->endpoint());
  }
  ShmConfig config() const {
    return {directory_.path(), 2, kRingBytes, kFrameBytesMax, std::chrono::milliseconds(200)};
  }
  UniqueFd greet(const ShmEndpoint& to, int ring) {
    UniqueFd socket = std::move(*dial_shm(victim_));
    CHECK(socket && send_greeting(socket.get(), to, hostile_bytes_, ring));
    return socket;
  }
  // The victim's ring, once it has answered.
  UniqueFd answer(int socket) {
    UniqueFd ring;
    EXPECT_TRUE(run_until({&end_}, [&] {
      auto greeting = receive_greeting(socket);
      if (greeting && *greeting) ring = std::move((*greeting)->ring);
      return static_cast<bool>(ring);
    }));
    return ring;
  }
  bool lost() {
    return run_until({&end_}, [&] { return !end_.all<PeerLost>().empty(); });
  }

  SocketDirectory directory_;
  TransportEnd end_;
  std::vector<std::byte> hostile_bytes_;
  ShmEndpoint victim_;
};

TEST_F(ShmTransportTest, AConnectionWithoutTheTokenIsNobody) {
  end_.transport->connect(PeerId{1}, hostile_bytes_);
  const UniqueFd ring = memfd(3 * kPageBytes, kAllSeals);
  ShmEndpoint guessed = victim_;
  guessed.token[0] ^= std::byte{1};
  const UniqueFd socket = greet(guessed, ring.get());
  ASSERT_TRUE(lost());
  EXPECT_TRUE(end_.all<PeerReady>().empty());
}

TEST_F(ShmTransportTest, AnAnswerWithoutTheTokenIsNobody) {
  ShmListener listener(directory_.path());
  ShmEndpoint hostile = listener.endpoint();
  hostile.token.fill(std::byte{0xFF});  // the highest: it is dialled
  end_.transport->connect(PeerId{1}, hostile.bytes());
  const UniqueFd socket = listener.accept();
  ASSERT_TRUE(socket && receive_greeting(socket.get()).has_value());
  Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
  ShmEndpoint guessed = victim_;
  guessed.token[0] ^= std::byte{1};
  ASSERT_TRUE(send_greeting(socket.get(), guessed, hostile.bytes(), writer->fd()));
  ASSERT_TRUE(lost());
  EXPECT_TRUE(end_.all<PeerReady>().empty());
}

TEST_F(ShmTransportTest, APeerThatNeverConnectsBackIsLostInTime) {
  const TimePoint begun = steady_now();
  end_.transport->connect(PeerId{1}, hostile_bytes_);
  ASSERT_TRUE(lost());
  EXPECT_GE(steady_now() - begun, std::chrono::milliseconds(200));
  EXPECT_TRUE(end_.all<PeerReady>().empty());
}

TEST_F(ShmTransportTest, AnUnsealedRingIsRefused) {
  end_.transport->connect(PeerId{1}, hostile_bytes_);
  const UniqueFd ring = memfd(3 * kPageBytes, 0);
  const UniqueFd socket = greet(victim_, ring.get());
  ASSERT_TRUE(lost());
  EXPECT_TRUE(end_.all<PeerReady>().empty());
}

TEST_F(ShmTransportTest, JunkOnTheSocketHarmsNobody) {
  std::vector<UniqueFd> sockets;
  for (int i = 0; i < 10; ++i) {  // more than peers_max
    sockets.push_back(std::move(*dial_shm(victim_)));
    if (i % 2 == 0) (void)::send(sockets.back().get(), "junk", 4, MSG_NOSIGNAL);
    for (int turn = 0; turn < 3; ++turn) end_.poll();
  }
  TransportEnd friendly;
  sockets.clear();
  friendly.transport = make_shm_transport(config());
  end_.transport->connect(PeerId{1}, friendly.transport->endpoint());
  friendly.transport->connect(PeerId{2}, end_.transport->endpoint());
  EXPECT_TRUE(run_until({&end_, &friendly},
                        [&] { return end_.all<PeerReady>().size() == 1 && friendly.all<PeerReady>().size() == 1; }));
}

TEST_F(ShmTransportTest, AGreetingThatComesBeforeConnectWaitsForIt) {
  Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
  const UniqueFd socket = greet(victim_, writer->fd());
  for (int i = 0; i < 3; ++i) end_.poll();
  end_.transport->connect(PeerId{1}, hostile_bytes_);
  EXPECT_TRUE(run_until({&end_}, [&] { return end_.all<PeerReady>().size() == 1; }));
}

TEST_F(ShmTransportTest, BytesChangedAfterTheAnnouncementShowInTheDigest) {
  Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
  const UniqueFd shared = UniqueFd(::fcntl(writer->fd(), F_DUPFD_CLOEXEC, 0));
  const UniqueFd socket = greet(victim_, writer->fd());
  end_.transport->connect(PeerId{1}, hostile_bytes_);
  const UniqueFd ring = answer(socket.get());
  std::mt19937_64 random(5);
  const auto payload = random_bytes(random, 4096);
  writer->write(SendId{1}, header_of(1, payload), payload);
  ASSERT_TRUE(run_until({&end_}, [&] { return end_.all<Arrived>().size() == 1; }));
  ShmMapping::map(shared.get())->at(kShmFrameHeaderBytes + 77, 1)[0] ^= std::byte{4};
  std::vector<std::byte> memory(payload.size());
  end_.transport->accept(end_.all<Arrived>()[0].arrival, memory, memory.size());
  ASSERT_TRUE(run_until({&end_}, [&] { return end_.all<Landed>().size() == 1; }));
  const uint32_t landed = part_digest(memory);
  EXPECT_EQ(end_.all<Landed>()[0].digest, combine_digests({&landed, 1}));
  EXPECT_NE(end_.all<Landed>()[0].digest, end_.all<Arrived>()[0].header.digest);
}

TEST_F(ShmTransportTest, APeerThatScribblesOverTheRingIsDroppedAndEverySendEnds) {
  std::mt19937_64 random(17);
  const auto payload = random_bytes(random, 3000);
  for (uint32_t round = 1; round <= 60; ++round) {
    end_.events.clear();
    Result<ShmWriter> writer = ShmWriter::make(kRingBytes);
    UniqueFd socket = greet(victim_, writer->fd());
    end_.transport->connect(PeerId{round}, hostile_bytes_);
    const UniqueFd ring = answer(socket.get());
    Result<ShmMapping> in = ShmMapping::map(ring.get());
    Result<ShmMapping> out = ShmMapping::map(writer->fd());
    ASSERT_TRUE(in && out);
    uint32_t sends = 0;
    std::vector<std::byte> memory(kFrameBytesMax);
    size_t seen = 0;
    for (uint32_t step = 0; step < 100 && end_.all<PeerLost>().empty(); ++step) {
      if (sends < 40) end_.transport->send(SendId{sends++}, PeerId{round}, header_of(step, payload), payload);
      const size_t page = random() % 2;
      ShmMapping& target = page == 0 ? *in : *out;
      switch (random() % 6) {
        case 0: target.control().published.fetch_add(random() % 3); break;
        case 1: target.control().answered.fetch_add(random() % 2); break;
        case 2: target.control().answers[random() % kShmWindow] = static_cast<uint8_t>(random() % 3); break;
        case 3: {
          const uint64_t word = random();
          std::memcpy(target.at(random() % (kRingBytes / 8) * 8, 8).data(), &word, sizeof word);
          break;
        }
        default:
          if (writer->has_room(payload.size())) writer->write(SendId{step}, header_of(step, payload), payload);
      }
      (void)writer->next_answer();
      end_.poll();
      const auto arrived = end_.all<Arrived>();
      for (; seen < arrived.size(); ++seen)
        end_.transport->accept(arrived[seen].arrival, std::span(memory).first(arrived[seen].header.bytes),
                               std::max(arrived[seen].header.bytes, 1u));
    }
    socket = UniqueFd();
    ASSERT_TRUE(lost());
    ASSERT_TRUE(run_until({&end_}, [&] { return end_.all<Sent>().size() == sends; }));
    ASSERT_TRUE(run_until({&end_}, [&] { return end_.all<Landed>().size() == seen; }));
  }
}

TEST_F(ShmTransportTest, AKilledProcessIsLostAtOnce) {
  int to_child[2], to_parent[2];
  ASSERT_TRUE(::pipe(to_child) == 0 && ::pipe(to_parent) == 0);
  std::array<std::byte, 256> bytes{};
  const pid_t child = ::fork();
  if (child == 0) {
    TransportEnd end;
    end.transport = make_shm_transport(config());
    const auto own = end.transport->endpoint();
    const bool told = ::write(to_parent[1], own.data(), own.size()) == static_cast<ssize_t>(own.size());
    const ssize_t size = ::read(to_child[0], bytes.data(), bytes.size());
    if (!told || size <= 0) ::_exit(1);
    end.transport->connect(PeerId{1}, std::span(bytes).first(static_cast<size_t>(size)));
    for (;;) run_until({&end}, [] { return false; });
  }
  const auto own = end_.transport->endpoint();
  ASSERT_EQ(::write(to_child[1], own.data(), own.size()), static_cast<ssize_t>(own.size()));
  const ssize_t size = ::read(to_parent[0], bytes.data(), bytes.size());
  ASSERT_GT(size, 0);
  end_.transport->connect(PeerId{7}, std::span(bytes).first(static_cast<size_t>(size)));
  EXPECT_TRUE(run_until({&end_}, [&] { return end_.all<PeerReady>().size() == 1; }));
  const std::vector<std::byte> payload(3000);
  end_.transport->send(SendId{1}, PeerId{7}, header_of(1, payload), payload);
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const TimePoint killed = steady_now();
  EXPECT_TRUE(lost());
  EXPECT_LT(steady_now() - killed, std::chrono::seconds(1));
  EXPECT_EQ(end_.all<Sent>().size(), 1u);
  EXPECT_EQ(end_.all<Sent>()[0].status, TransferStatus::kPeerLost);
  for (const int fd : {to_child[0], to_child[1], to_parent[0], to_parent[1]}) ::close(fd);

  // Its socket file is left behind, and removed by the next transport; that of the living one stays.
  const auto files = [&] {
    return std::distance(std::filesystem::directory_iterator(directory_.path()), std::filesystem::directory_iterator());
  };
  EXPECT_EQ(files(), 2);
  const auto next = make_shm_transport(config());
  EXPECT_EQ(files(), 2);
  EXPECT_TRUE(std::filesystem::exists(victim_.path));
}

TEST_F(ShmTransportTest, WhatCannotWorkIsSaidAtTheStart) {
  ShmConfig small = config();
  small.frame_bytes_max = kRingBytes;
  EXPECT_THROW(make_shm_transport(small), SetupError);
  ShmConfig odd = config();
  odd.ring_bytes = kRingBytes + 1;
  EXPECT_THROW(make_shm_transport(odd), SetupError);
  ShmConfig nowhere = config();
  nowhere.socket_directory = "/nowhere/at/all";
  EXPECT_THROW(make_shm_transport(nowhere), SetupError);
  ShmConfig deep = config();
  deep.socket_directory += "/" + std::string(100, 'x');
  EXPECT_THROW(make_shm_transport(deep), SetupError);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0755), 0);
  EXPECT_THROW(make_shm_transport(config()), SetupError);
  ASSERT_EQ(::chmod(directory_.path().c_str(), 0700), 0);
}

}  // namespace
}  // namespace spillway
