#include "transfer/control_sockets.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>

#include "common/check.h"
#include "common/clock.h"
#include "common/thread.h"
#include "common/unique_fd.h"
#include "tests/transfer/transport_pair.h"

namespace spillway {
namespace {

// Takes every connection to `path` and ends it at once.
class RudeListener {
 public:
  explicit RudeListener(const std::string& path) : listening_(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    CHECK(path.size() < sizeof address.sun_path);
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listening_.get(), 64), 0);
    thread_ = std::make_unique<Thread>("rude", [this] {
      for (;;) {
        const UniqueFd taken(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!taken && errno != EINTR && errno != ECONNABORTED) return;
        ended_ += taken ? 1 : 0;
      }
    });
  }
  ~RudeListener() { ::shutdown(listening_.get(), SHUT_RDWR); }
  uint32_t ended() const { return ended_; }

 private:
  const UniqueFd listening_;
  std::atomic<uint32_t> ended_{0};
  std::unique_ptr<Thread> thread_;
};

// The event of a connection that ends comes from ZeroMQ's thread, at any moment of our own hanging up. So many rounds,
// each ending at another moment of a connection, met the wrong one every time while events could outlive their reader.
TEST(ControlSockets, HangingUpOnAPeerThatHangsUpStopsNoOtherConnection) {
  const SocketDirectory directory;
  const RudeListener rude(directory.path() + "/rude");
  ControlSockets accepting("ipc://" + directory.path() + "/kind", 16), dialling("", 16);
  std::mt19937 random(5);
  const TimePoint deadline = steady_now() + std::chrono::seconds(60);
  const auto dial = [&](const char* name) {  // sockets that were hung up leave in the background
    Result<DealerId> dealer = dialling.dial("ipc://" + directory.path() + "/" + name);
    while (!dealer && steady_now() < deadline) dealer = dialling.dial("ipc://" + directory.path() + "/" + name);
    return dealer;
  };
  for (int i = 0; i < 2000; ++i) {
    const Result<DealerId> dealer = dial("rude");
    ASSERT_TRUE(dealer) << dealer.error().detail;
    const TimePoint until = steady_now() + std::chrono::microseconds(random() % 300);
    while (steady_now() < until) {
    }
    dialling.hang_up(*dealer);
  }
  const Result<DealerId> dealer = dial("kind");
  ASSERT_TRUE(dealer);
  const std::byte body[] = {std::byte{7}};
  EXPECT_GT(rude.ended(), 0u);
  while (!dialling.send({*dealer, {}}, body)) ASSERT_LT(steady_now(), deadline) << "its thread is stopped";
  std::optional<ControlSockets::Received> received;
  while (!(received = accepting.receive())) ASSERT_LT(steady_now(), deadline);
  EXPECT_EQ(received->body.size(), sizeof body);
}

}  // namespace
}  // namespace spillway
