#pragma once

#include <gtest/gtest.h>
#include <poll.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "tests/transfer/transport_pair.h"
#include "transfer/control_channel.h"

namespace spillway {

inline constexpr Duration kInterval = std::chrono::milliseconds(20);
inline constexpr Duration kSilence = std::chrono::milliseconds(1000);

inline Hello hello_of(uint64_t boot, const std::string& name) {
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
inline bool run_channels(const std::vector<ChannelEnd*>& ends, const std::function<bool()>& done) {
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
    config.refusal_pause = kInterval;
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
  bool both(const std::function<bool()>& done) { return run_channels({a_.get(), b_.get()}, done); }

  SocketDirectory directory_;
  std::unique_ptr<ChannelEnd> a_, b_;
};

}  // namespace spillway
