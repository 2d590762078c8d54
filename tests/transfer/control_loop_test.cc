#include "transfer/control_loop.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <functional>
#include <thread>

#include "common/check.h"
#include "common/mailbox.h"
#include "tests/transfer/transport_pair.h"

namespace spillway {
namespace {

// One process's loop thread. `on_control` may use `channel`; nothing else runs on it.
struct LoopEnd {
  LoopEnd(const ControlConfig& config, uint64_t boot) : channel(config, hello(boot)) {}
  static Hello hello(uint64_t boot) {
    Hello hello;
    hello.boot = BootId{boot};
    hello.name = "node";
    return hello;
  }
  ControlLoop::Role role() {
    return {[this](const ControlEvent& event, TimePoint now) { on_control(event, now); },
            [this](TimePoint now) { on_wake(now); }, [this] { return deadline; }};
  }
  ControlChannel channel;
  EventFdWaker waker;
  std::function<void(const ControlEvent&, TimePoint)> on_control = [](const ControlEvent&, TimePoint) {};
  std::function<void(TimePoint)> on_wake = [](TimePoint) {};
  TimePoint deadline = kNever;
};

class ControlLoopTest : public ::testing::Test {
 protected:
  ControlConfig config(bool binds) const {
    ControlConfig config;
    if (binds) config.bind_endpoint = endpoint_;
    // Beyond the test's patience: nothing but the sockets' own events may wake a loop.
    config.heartbeat_interval = std::chrono::seconds(60);
    config.silence_max = std::chrono::seconds(600);
    return config;
  }
  SocketDirectory directory_;
  const std::string endpoint_ = "ipc://" + directory_.path() + "/loop";
};

TEST_F(ControlLoopTest, NoMessageIsForgottenBehindAnEdge) {
  constexpr uint32_t kRounds = 3000;
  LoopEnd server(config(true), 1), client(config(false), 2);
  // Each answers each message with one more; three balls in the air, so that sends and arrivals overlap.
  uint32_t served = 0, answered = 0;
  ControlLoop server_loop(server.channel, server.waker, server.role());
  ControlLoop client_loop(client.channel, client.waker, client.role());
  server.on_control = [&](const ControlEvent& event, TimePoint) {
    if (const auto* const message = std::get_if<PeerMessage>(&event)) {
      ++served;
      server.channel.send(message->peer, message->message);
    }
  };
  client.on_control = [&](const ControlEvent& event, TimePoint) {
    if (const auto* const up = std::get_if<PeerUp>(&event))
      for (uint32_t i = 0; i < 3; ++i) client.channel.send(up->peer, Load{i, 0, 0});
    if (const auto* const message = std::get_if<PeerMessage>(&event)) {
      if (++answered == kRounds) client_loop.stop();
      client.channel.send(message->peer, Load{answered, 0, 0});
    }
  };
  std::thread server_thread([&] { server_loop.run(); });
  client.channel.connect(endpoint_);
  client.deadline = steady_now() + std::chrono::seconds(30);
  client.on_wake = [&](TimePoint now) {
    if (now >= client.deadline) client_loop.stop();
  };
  client_loop.run();
  server_loop.stop();
  server_thread.join();
  EXPECT_GE(answered, kRounds);
  EXPECT_GE(served, kRounds);
}

TEST_F(ControlLoopTest, MailboxesAndDeadlinesWakeTheRole) {
  LoopEnd node(config(true), 1);
  ControlLoop loop(node.channel, node.waker, node.role());
  Mailbox<int> mailbox(4, node.waker);
  const TimePoint due = steady_now() + std::chrono::milliseconds(30);
  node.deadline = due;
  std::vector<int> taken;
  bool rang = false;
  node.on_wake = [&](TimePoint now) {
    while (auto item = mailbox.take()) taken.push_back(*item);
    if (now >= node.deadline) {
      rang = true;
      node.deadline = kNever;
    }
    if (rang && taken.size() == 2) loop.stop();
  };
  std::thread poster([&] {
    mailbox.push(1);
    mailbox.push(2);
  });
  loop.run();
  poster.join();
  EXPECT_EQ(taken, (std::vector<int>{1, 2}));
  EXPECT_GE(steady_now(), due);
}

ControlLoop* signalled_loop = nullptr;

TEST_F(ControlLoopTest, ASignalHandlerMayStopIt) {
  LoopEnd node(config(true), 1);
  ControlLoop loop(node.channel, node.waker, node.role());
  signalled_loop = &loop;
  struct sigaction action {
  }, before{};
  action.sa_handler = [](int) { signalled_loop->stop(); };
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  std::thread sender([] { ::kill(::getpid(), SIGUSR1); });
  loop.run();  // ends
  sender.join();
  ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(ControlLoopTest, AStopWhileEventsAreHandledIsNotSleptThrough) {
  LoopEnd server(config(true), 1), client(config(false), 2);
  ControlLoop loop(client.channel, client.waker, client.role());
  ControlLoop server_loop(server.channel, server.waker, server.role());
  client.on_control = [&](const ControlEvent&, TimePoint) { loop.stop(); };  // before the turn's drain
  client.channel.connect(endpoint_);
  client.deadline = steady_now() + std::chrono::seconds(30);
  std::thread server_thread([&] { server_loop.run(); });
  loop.run();
  EXPECT_LT(steady_now(), client.deadline);
  server_loop.stop();
  server_thread.join();
}

TEST_F(ControlLoopTest, ARefusedProcessEndsWithTheReason) {
  LoopEnd server(config(true), 1);
  ControlLoop server_loop(server.channel, server.waker, server.role());
  std::thread server_thread([&] { server_loop.run(); });
  Hello other = LoopEnd::hello(2);
  other.model.bytes[3] = std::byte{1};
  ControlChannel channel(config(false), other);
  channel.connect(endpoint_);
  LoopEnd idle(config(false), 3);
  ControlLoop loop(channel, idle.waker, idle.role());
  try {
    loop.run();
    ADD_FAILURE() << "not refused";
  } catch (const SetupError& error) {
    EXPECT_NE(std::string(error.what()).find("give both the same model file"), std::string::npos);
  }
  server_loop.stop();
  server_thread.join();
}

}  // namespace
}  // namespace spillway
