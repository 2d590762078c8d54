#include "transfer/control_sockets.h"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstring>
#include <memory>
#include <optional>
#include <random>
#include <string>

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
    std::memcpy(address.sun_path, path.data(), path.size());
    EXPECT_EQ(::bind(listening_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    EXPECT_EQ(::listen(listening_.get(), 64), 0);
    thread_ = std::make_unique<Thread>("rude", [this] {
      for (;;) {
        const UniqueFd taken(::accept4(listening_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!taken) return;
      }
    });
  }
  ~RudeListener() { ::shutdown(listening_.get(), SHUT_RDWR); }

 private:
  const UniqueFd listening_;
  std::unique_ptr<Thread> thread_;
};

// The event of a connection that ends comes from ZeroMQ's thread, at any moment of our own hanging up.
TEST(ControlSockets, HangingUpOnAPeerThatHangsUpStopsNoOtherConnection) {
  const SocketDirectory directory;
  const RudeListener rude(directory.path() + "/rude");
  ControlSockets accepting("ipc://" + directory.path() + "/kind", 16), dialling("", 16);
  std::mt19937 random(5);
  for (int i = 0; i < 2000; ++i) {
    const Result<DealerId> dealer = dialling.dial("ipc://" + directory.path() + "/rude");
    ASSERT_TRUE(dealer) << dealer.error().detail;
    const TimePoint until = steady_now() + std::chrono::microseconds(random() % 300);
    while (steady_now() < until) {
    }
    dialling.hang_up(*dealer);
  }
  const Result<DealerId> dealer = dialling.dial("ipc://" + directory.path() + "/kind");
  ASSERT_TRUE(dealer);
  const std::byte body[] = {std::byte{7}};
  const TimePoint deadline = steady_now() + std::chrono::seconds(5);
  while (!dialling.send({*dealer, {}}, body)) ASSERT_LT(steady_now(), deadline) << "its thread is stopped";
  std::optional<ControlSockets::Received> received;
  while (!(received = accepting.receive())) ASSERT_LT(steady_now(), deadline);
  EXPECT_EQ(received->body.size(), sizeof body);
}

}  // namespace
}  // namespace spillway
