#include "transfer/control_channel.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <thread>

#include "common/check.h"
#include "tests/transfer/transport_pair.h"
#include "transfer/control_sockets.h"
#include "transfer/message_codec.h"

namespace spillway {
namespace {

constexpr Duration kInterval = std::chrono::milliseconds(20);
constexpr Duration kSilence = std::chrono::milliseconds(1000);

Hello hello_of(uint64_t boot, const std::string& name) {
  Hello hello;
  hello.boot = BootId{boot};
  hello.role = Role::kDecode;
  hello.name = name;
  hello.block_tokens = 64;
  return hello;
}

// A channel and all that it has said. Time is real plus `skew`.
struct ChannelEnd {
  ChannelEnd(ControlConfig config, Hello self) : channel(config, std::move(self)) {}
  void receive(size_t events_max = 3) { channel.receive(steady_now() + skew, events, events_max); }
  template <class Event>
  std::vector<Event> all() const {
    std::vector<Event> found;
    for (const ControlEvent& event : events)
      if (const auto* const one = std::get_if<Event>(&event)) found.push_back(*one);
    return found;
  }
  PeerId peer() const { return all<PeerUp>().at(0).peer; }
  ControlChannel channel;
  std::vector<ControlEvent> events;
  Duration skew{};
};

// Sleeps as ControlLoop does. False: not within five seconds.
bool run_until(const std::vector<ChannelEnd*>& ends, const std::function<bool()>& done) {
  const TimePoint deadline = steady_now() + std::chrono::seconds(5);
  while (!done()) {
    if (steady_now() > deadline) return false;
    for (ChannelEnd* const end : ends) end->receive();
    if (done()) return true;
    std::vector<pollfd> sources;
    TimePoint next = kNever;
    for (ChannelEnd* const end : ends) {
      for (const int fd : end->channel.fds()) sources.push_back({fd, POLLIN, 0});
      next = std::min(next, end->channel.next_deadline());
    }
    const Duration most = std::chrono::milliseconds(100);  // `done` may wait for time alone
    const Duration left = next <= steady_now() ? Duration::zero() : std::min(most, next - steady_now());
    ::poll(sources.data(), sources.size(), static_cast<int>(std::ceil(milliseconds(left))));
  }
  return true;
}

class ControlChannelTest : public ::testing::Test {
 protected:
  std::string endpoint(const std::string& name) const { return "ipc://" + directory_.path() + "/" + name; }
  ControlConfig config(const std::string& name) const {
    ControlConfig config;
    if (!name.empty()) config.bind_endpoint = endpoint(name);
    config.peers_max = 3;
    config.heartbeat_interval = kInterval;
    config.silence_max = kSilence;
    return config;
  }
  std::unique_ptr<ChannelEnd> make(const std::string& bind, Hello self) const {
    return std::make_unique<ChannelEnd>(config(bind), std::move(self));
  }
  // `a` accepts, `b` has connected to it.
  void connect() {
    a_ = make("a", hello_of(1, "gateway"));
    b_ = make("", hello_of(2, "prefill 0"));
    b_->channel.connect(endpoint("a"));
    b_->channel.connect(endpoint("a"));  // one connection
    ASSERT_TRUE(both([&] { return !a_->events.empty() && !b_->events.empty(); }));
  }
  bool both(const std::function<bool()>& done) { return run_until({a_.get(), b_.get()}, done); }

  SocketDirectory directory_;
  std::unique_ptr<ChannelEnd> a_, b_;
};

Message load(uint32_t number) { return Load{number, 0, 0}; }

TEST_F(ControlChannelTest, HelloGoesBothWaysFirstAndMessagesKeepTheirOrder) {
  connect();
  ASSERT_EQ(a_->events.size(), 1u);
  ASSERT_EQ(b_->events.size(), 1u);
  EXPECT_EQ(a_->all<PeerUp>()[0].hello, hello_of(2, "prefill 0"));
  EXPECT_EQ(b_->all<PeerUp>()[0].hello, hello_of(1, "gateway"));
  constexpr uint32_t kMessages = 300;
  for (uint32_t i = 0; i < kMessages; ++i) {
    EXPECT_EQ(a_->channel.send(a_->peer(), load(i)), ControlChannel::SendStatus::kSent);
    EXPECT_EQ(b_->channel.send(b_->peer(), load(i)), ControlChannel::SendStatus::kSent);
  }
  ASSERT_TRUE(both([&] { return a_->events.size() > kMessages && b_->events.size() > kMessages; }));
  for (const auto& end : {&a_, &b_})
    for (uint32_t i = 0; i < kMessages; ++i) EXPECT_EQ((*end)->all<PeerMessage>()[i].message, load(i));
}

TEST_F(ControlChannelTest, WhoComesFirstDoesNotMatterAndHeartbeatsKeepIdlePeers) {
  b_ = make("", hello_of(2, "prefill 0"));
  b_->channel.connect(endpoint("a"));
  const TimePoint begun = steady_now();
  run_until({b_.get()}, [&] { return steady_now() - begun > 5 * kInterval; });
  a_ = make("a", hello_of(1, "gateway"));
  ASSERT_TRUE(both([&] { return !a_->events.empty() && !b_->events.empty(); }));
  const TimePoint up = steady_now();
  both([&] { return steady_now() - up > kSilence + 5 * kInterval; });
  EXPECT_EQ(a_->events.size(), 1u);
  EXPECT_EQ(b_->events.size(), 1u);
}

TEST_F(ControlChannelTest, AnotherModelOrProtocolIsRefusedNamingBoth) {
  a_ = make("a", hello_of(1, "gateway"));
  Hello other = hello_of(2, "prefill 0");
  other.model.bytes[0] = std::byte{0xAB};
  b_ = make("", other);
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
  const std::string zero = ModelId{}.hex();
  EXPECT_EQ(b_->channel.refused_reason(), "\"prefill 0\" has model " + other.model.hex() + ", \"gateway\" has model " +
                                              zero + ": give both the same model file");
  other = hello_of(2, "prefill 0");
  other.protocol_version = kProtocolVersion + 1;
  b_ = make("", other);
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
  EXPECT_EQ(b_->channel.refused_reason(),
            "\"prefill 0\" speaks protocol version 4, \"gateway\" speaks 3: run the same release on both");
  EXPECT_TRUE(a_->events.empty());
  EXPECT_TRUE(a_->channel.refused_reason().empty());
}

TEST_F(ControlChannelTest, AnotherCanaryIsRefusedInTheSameNumericsClassOnly) {
  Hello ours = hello_of(1, "decode 0"), theirs = hello_of(2, "prefill 0");
  ours.encoding.numerics = theirs.encoding.numerics = NumericsClass{7};
  ours.canary = 0x10, theirs.canary = 0x11;
  a_ = make("a", ours);
  b_ = make("", theirs);
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !b_->channel.refused_reason().empty(); }));
  EXPECT_EQ(b_->channel.refused_reason(),
            "\"prefill 0\" and \"decode 0\" compute different bits in numerics class 7, canary 0000000000000011 and "
            "0000000000000010: run the same release with the same libm on both");
  theirs.encoding.numerics = NumericsClass{8};
  b_ = make("", theirs);
  b_->channel.connect(endpoint("a"));
  EXPECT_TRUE(both([&] { return a_->events.size() == 1 && b_->events.size() == 1; }));
}

TEST_F(ControlChannelTest, ARestartedAcceptorIsGoneThenUpAsAnotherPeer) {
  connect();
  a_ = nullptr;
  a_ = make("a", hello_of(3, "gateway"));
  ASSERT_TRUE(both([&] { return b_->events.size() == 3; }));
  EXPECT_EQ(std::get<PeerGone>(b_->events[1]).peer, b_->peer());
  EXPECT_NE(std::get<PeerUp>(b_->events[2]).peer, b_->peer());
  EXPECT_EQ(std::get<PeerUp>(b_->events[2]).hello.boot, BootId{3});
}

TEST_F(ControlChannelTest, ARestartedConnectorIsGoneThenUpAsAnotherPeer) {
  connect();
  b_ = make("", hello_of(4, "prefill 0"));
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return a_->events.size() == 3; }));
  // Two connections: which of the two is noticed first is left to chance.
  ASSERT_EQ(a_->all<PeerGone>().size(), 1u);
  ASSERT_EQ(a_->all<PeerUp>().size(), 2u);
  EXPECT_EQ(a_->all<PeerGone>()[0].peer, a_->peer());
  EXPECT_EQ(a_->all<PeerUp>()[1].hello.boot, BootId{4});
}

TEST_F(ControlChannelTest, ASendToAPeerThatEndedIsToldAsLostOnce) {
  connect();
  b_ = nullptr;
  const TimePoint deadline = steady_now() + std::chrono::seconds(5);
  while (a_->channel.send(a_->peer(), load(1)) == ControlChannel::SendStatus::kSent && steady_now() < deadline)
    std::this_thread::yield();
  EXPECT_EQ(a_->channel.send(a_->peer(), load(1)), ControlChannel::SendStatus::kPeerLost);
  EXPECT_LE(a_->channel.next_deadline(), steady_now());  // there is something to receive
  for (int i = 0; i < 3; ++i) a_->receive();
  ASSERT_EQ(a_->events.size(), 2u);
  EXPECT_EQ(a_->all<PeerGone>()[0].peer, a_->peer());
}

TEST_F(ControlChannelTest, APeerThatStopsReadingIsLostAtTheHighWaterMark) {
  ControlConfig small = config("a");
  small.messages_queued_max = 4;
  a_ = std::make_unique<ChannelEnd>(small, hello_of(1, "gateway"));
  small.bind_endpoint.clear();
  b_ = std::make_unique<ChannelEnd>(small, hello_of(2, "prefill 0"));
  b_->channel.connect(endpoint("a"));
  ASSERT_TRUE(both([&] { return !a_->events.empty() && !b_->events.empty(); }));
  Reserve big;
  big.work.output_tokens_max = 1;
  big.work.prompt.resize(1 << 18);  // 1 MiB: past what sockets buffer
  size_t sent = 0;
  // Four wait here, four there, and what the kernel and ZeroMQ hold between them.
  while (sent < 100 && a_->channel.send(a_->peer(), big) == ControlChannel::SendStatus::kSent) ++sent;
  EXPECT_LT(sent, 100u);
  a_->receive();
  EXPECT_EQ(a_->all<PeerGone>().size(), 1u);
}

TEST_F(ControlChannelTest, HeartbeatsGoOutWhileMessagesKeepComing) {
  connect();
  for (uint32_t number = 0; number < 300; ++number)
    ASSERT_EQ(a_->channel.send(a_->peer(), load(number)), ControlChannel::SendStatus::kSent);
  ASSERT_TRUE(run_until({b_.get()}, [&] { return b_->events.size() > 3; }));
  for (int round = 0; round < 20; ++round) {  // five times the silence limit
    a_->skew += kSilence / 4;
    b_->skew += kSilence / 4;
    b_->receive();  // three of the many that wait
    for (int turn = 0; turn < 4; ++turn) {
      std::vector<pollfd> sources;
      for (const int fd : a_->channel.fds()) sources.push_back({fd, POLLIN, 0});
      ::poll(sources.data(), sources.size(), 100);
      a_->receive();
    }
  }
  EXPECT_LT(b_->all<PeerMessage>().size(), 300u);
  EXPECT_TRUE(a_->all<PeerGone>().empty());
}

TEST_F(ControlChannelTest, AnEndpointHeldByALivingProcessIsNotTaken) {
  a_ = make("a", hello_of(1, "gateway"));
  try {
    make("a", hello_of(2, "gateway"));
    FAIL() << "bound twice";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("held by process " + std::to_string(::getpid())), std::string::npos);
  }
  EXPECT_THROW(ControlChannel({.bind_endpoint = "nonsense"}, Hello{}), SetupError);
  EXPECT_THROW(ControlChannel({.bind_endpoint = endpoint(std::string(200, 'x'))}, Hello{}), SetupError);
}

TEST_F(ControlChannelTest, OutOfSocketsIsANamedFailure) {
  ControlSockets sockets("", 8);
  Result<DealerId> dealer = sockets.dial(endpoint("nobody"));
  for (int dials = 0; dealer && dials < 5000; ++dials) dealer = sockets.dial(endpoint("nobody"));
  ASSERT_FALSE(dealer);
  EXPECT_EQ(dealer.error().code, ErrorCode::kNoSpace);
  EXPECT_NE(dealer.error().detail.find(endpoint("nobody")), std::string::npos);
}

TEST_F(ControlChannelTest, WhatIsNotAnEndpointIsForgotten) {
  b_ = make("", hello_of(2, "prefill 0"));
  for (const char* const bad : {"", "nonsense", "tcp://", "ipc://", "udp://x"}) b_->channel.connect(bad);
  b_->receive();
  b_->receive();
  EXPECT_EQ(b_->channel.next_deadline(), kNever);
}

// Speaks to a channel below the level of a channel.
class RawPeerTest : public ControlChannelTest {
 protected:
  void SetUp() override {
    a_ = make("a", hello_of(1, "gateway"));
    dealer_ = *sockets_.dial(endpoint("a"));
  }
  void send(DealerId dealer, const std::vector<std::byte>& bytes) {
    const TimePoint deadline = steady_now() + std::chrono::seconds(5);
    while (!sockets_.send({dealer, {}}, bytes) && steady_now() < deadline) std::this_thread::yield();
  }
  void send(uint64_t boot, const Message& message) { send(dealer_, encode_message(BootId{boot}, message)); }
  bool run(const std::function<bool()>& done) { return run_until({a_.get()}, done); }
  std::optional<Message> answer() {
    std::optional<Message> message;
    run([&] {
      if (auto received = sockets_.receive())
        message =
            decode_message({static_cast<const std::byte*>(received->body.data()), received->body.size()})->message;
      return message.has_value();
    });
    return message;
  }
  ControlSockets sockets_{"", 1000};
  DealerId dealer_{};
};

TEST_F(RawPeerTest, JunkAndStrangersAreCountedAndDropped) {
  send(dealer_, std::vector<std::byte>(100, std::byte{7}));
  send(dealer_, {});
  send(7, load(1));                  // no Hello yet
  send(7, hello_of(8, "liar"));      // boot id of another
  send(7, HelloRefused{"go away"});  // ends nothing at an acceptor
  ASSERT_TRUE(run([&] { return a_->channel.counts().junk == 5; }));
  EXPECT_TRUE(a_->events.empty());
  EXPECT_TRUE(a_->channel.refused_reason().empty());
}

TEST_F(RawPeerTest, AMessageWithAnotherBootIdIsDropped) {
  send(7, hello_of(7, "decode 0"));
  send(6, load(1));  // of its life before
  send(7, load(2));
  ASSERT_TRUE(run([&] { return !a_->all<PeerMessage>().empty(); }));
  EXPECT_EQ(a_->all<PeerMessage>()[0].message, load(2));
  EXPECT_EQ(a_->channel.counts().stale, 1u);
}

TEST_F(RawPeerTest, AHelloSaidAgainIsAnsweredAgainAndHeartbeatsAreNoEvents) {
  for (int i = 0; i < 3; ++i) send(7, hello_of(7, "decode 0"));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(std::holds_alternative<Hello>(answer().value()));
  send(7, Heartbeat{});
  send(7, load(1));
  ASSERT_TRUE(run([&] { return !a_->all<PeerMessage>().empty(); }));
  EXPECT_EQ(a_->events.size(), 2u);
}

TEST_F(RawPeerTest, ASilentPeerIsLostAtTheLimitAndNotBefore) {
  send(7, hello_of(7, "decode 0"));
  ASSERT_TRUE(run([&] { return !a_->events.empty(); }));
  a_->skew = kSilence - 10 * kInterval;
  for (int i = 0; i < 3; ++i) a_->receive();
  EXPECT_TRUE(a_->all<PeerGone>().empty());
  a_->skew = kSilence + std::chrono::milliseconds(1);
  for (int i = 0; i < 3; ++i) a_->receive();
  ASSERT_EQ(a_->all<PeerGone>().size(), 1u);
  EXPECT_NE(a_->all<PeerGone>()[0].reason.find("silent"), std::string::npos);
}

TEST_F(RawPeerTest, WordsReadLateAreNotSilence) {
  const DealerId other = *sockets_.dial(endpoint("a"));
  send(7, hello_of(7, "decode 0"));
  send(other, encode_message(BootId{8}, hello_of(8, "decode 1")));
  ASSERT_TRUE(run([&] { return a_->all<PeerUp>().size() == 2; }));
  send(7, load(1));
  send(other, encode_message(BootId{8}, load(2)));
  const TimePoint begun = steady_now();
  while (steady_now() - begun < kInterval) std::this_thread::yield();  // they arrive
  a_->skew = 10 * kSilence;                                            // this process was stopped meanwhile
  for (int i = 0; i < 6; ++i) a_->receive(1);                          // reads one, must not yet judge the other
  EXPECT_EQ(a_->all<PeerMessage>().size(), 2u);
  EXPECT_TRUE(a_->all<PeerGone>().empty());
}

TEST_F(RawPeerTest, ANewConnectionOfTheSameProcessReplacesTheOld) {
  send(7, hello_of(7, "decode 0"));
  ASSERT_TRUE(run([&] { return !a_->events.empty(); }));
  dealer_ = *sockets_.dial(endpoint("a"));
  send(7, hello_of(7, "decode 0"));
  ASSERT_TRUE(run([&] { return a_->events.size() == 3; }));
  EXPECT_TRUE(std::holds_alternative<PeerGone>(a_->events[1]));
  EXPECT_TRUE(std::holds_alternative<PeerUp>(a_->events[2]));
}

TEST_F(RawPeerTest, AnotherBootOnTheSameConnectionIsAnotherPeer) {
  send(7, hello_of(7, "decode 0"));
  send(8, hello_of(8, "decode 0"));
  ASSERT_TRUE(run([&] { return a_->events.size() == 3; }));
  EXPECT_TRUE(std::holds_alternative<PeerGone>(a_->events[1]));
  EXPECT_EQ(std::get<PeerUp>(a_->events[2]).hello.boot, BootId{8});
}

TEST_F(RawPeerTest, MorePeersThanTheBoundAreNotAccepted) {
  for (uint64_t boot = 10; boot < 15; ++boot) {
    dealer_ = *sockets_.dial(endpoint("a"));
    send(boot, hello_of(boot, "decode " + std::to_string(boot)));
  }
  const TimePoint begun = steady_now();
  run([&] { return steady_now() - begun > 10 * kInterval; });
  EXPECT_EQ(a_->all<PeerUp>().size(), 3u);
}

TEST_F(ControlChannelTest, AKilledProcessIsGoneWithinTheSilenceLimit) {
  const pid_t child = ::fork();
  if (child == 0) {
    b_ = make("", hello_of(2, "prefill 0"));
    b_->channel.connect(endpoint("a"));
    for (;;) run_until({b_.get()}, [] { return false; });
  }
  a_ = make("a", hello_of(1, "gateway"));
  EXPECT_TRUE(run_until({a_.get()}, [&] { return !a_->events.empty(); }));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  const TimePoint killed = steady_now();
  EXPECT_TRUE(run_until({a_.get()}, [&] { return !a_->all<PeerGone>().empty(); }));
  EXPECT_LT(steady_now() - killed, kSilence / 2);  // seen as a hang-up, not as silence
}

}  // namespace
}  // namespace spillway
