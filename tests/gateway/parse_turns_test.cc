// Who is read next: fair among tenants before there is a queue of tokens.
#include "gateway/parse_turns.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <semaphore>
#include <string>
#include <string_view>
#include <vector>

#include "tests/gateway/ask.h"
#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

constexpr std::array<std::byte, 32> kSecret{std::byte{1}};
constexpr std::string_view kHeavy = "Authorization: Bearer heavy-user\r\n",
                           kLight = "Authorization: Bearer light-user\r\n";

HttpConfig with_two_keys() {
  HttpConfig config;
  config.keys = ApiKeys(std::vector<std::string>{"heavy-user", "light-user"}, kSecret);
  return config;
}

// Whatever was sent before has come to its place when a request sent after it is answered.
void let_pass(FakeLoop& loop) {
  for (int round = 0; round < 2; ++round) EXPECT_EQ(fetch(loop, "/health/live").status, 200u);
}

TEST(ParseTurns, AsManyAtOnceAsThereAreThreadsAndEachTenantInTurn) {
  ParseTurns turns(2);
  const auto request = [](uint64_t id) { return RequestId{BootId{1}, id}; };
  for (const uint64_t id : {1, 2, 3, 4}) turns.ask({request(id), TenantId{7}, 1000});
  EXPECT_EQ(turns.begin_next(), request(1));
  EXPECT_EQ(turns.begin_next(), request(2));
  EXPECT_EQ(turns.begin_next(), std::nullopt);
  turns.ask({request(5), TenantId{8}, 10});
  turns.end(request(3));  // waits no more
  turns.end(request(1));
  EXPECT_EQ(turns.begin_next(), request(5));
  turns.end(request(5));
  EXPECT_EQ(turns.begin_next(), request(4));
  turns.end(request(2));
  EXPECT_EQ(turns.begin_next(), std::nullopt);
}

TEST(HttpParseTurns, OneKeysLargeRequestsHoldUpAnotherByOneAtMost) {
  FakeLoop loop(says("x"), with_two_keys());
  std::counting_semaphore<16> go(0);
  loop.tokenizer.before_encode = [&](std::string_view text) {
    if (text == "slow") static_cast<void>(go.try_acquire_for(std::chrono::seconds(20)));
  };
  std::vector<std::unique_ptr<RawClient>> heavy;
  for (int index = 0; index < 6; ++index) {
    heavy.push_back(std::make_unique<RawClient>(loop.port()));
    heavy.back()->post("/tokenize", R"({"prompt":"slow"})", kHeavy);
    let_pass(loop);
  }
  RawClient light(loop.port());
  light.post("/v1/completions", R"({"prompt":"hi"})", kLight);
  let_pass(loop);
  go.release();
  EXPECT_EQ(light.read_reply().value_or(RawReply{}).status, 200u) << "it waited behind all of the other's";
  go.release(5);
  for (const auto& client : heavy) EXPECT_EQ(client->read_reply().value_or(RawReply{}).status, 200u);
}

TEST(HttpParseTurns, OneThatLeavesWhileItWaitsIsNotRead) {
  FakeLoop loop(says("x"));
  std::counting_semaphore<16> go(0);
  loop.tokenizer.before_encode = [&](std::string_view text) {
    if (text == "slow") static_cast<void>(go.try_acquire_for(std::chrono::seconds(20)));
  };
  std::vector<std::unique_ptr<RawClient>> clients;
  for (int index = 0; index < 5; ++index) {
    clients.push_back(std::make_unique<RawClient>(loop.port()));
    clients.back()->post("/v1/completions", R"({"prompt":"slow"})");
    let_pass(loop);
  }
  for (const int waits : {2, 3}) clients[static_cast<size_t>(waits)]->close();
  let_pass(loop);
  go.release(3);  // as many as are left
  for (const int stays : {0, 1, 4})
    EXPECT_EQ(clients[static_cast<size_t>(stays)]->read_reply().value_or(RawReply{}).status, 200u) << stays;
  EXPECT_EQ(loop.arrived().size(), 3u);
}

TEST(HttpParseTurns, OneKeyFillsHalfOfTheRoomForBodiesAtMost) {
  HttpConfig config = with_two_keys();
  config.body_bytes_total_max = 1000;
  FakeLoop loop(says("x"), config);
  const auto ask_with = [&](std::string_view key, size_t bytes) {
    return ask(loop, "/v1/completions", R"({"prompt":"a"})" + std::string(bytes - 14, ' '), key).status;
  };
  EXPECT_EQ(ask_with(kHeavy, 500), 200u);
  EXPECT_EQ(ask_with(kHeavy, 501), 503u);
  RawClient slow(loop.port());
  slow.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n" + std::string(kHeavy) +
            "Content-Length: 500\r\n\r\n" + R"({"prompt":"a"})" + std::string(480 - 14, ' '));
  let_pass(loop);
  EXPECT_EQ(ask_with(kHeavy, 21), 503u);
  EXPECT_EQ(ask_with(kLight, 500), 200u) << "the other's half is its own";
  slow.send(std::string(20, ' '));
  EXPECT_EQ(slow.read_reply().value_or(RawReply{}).status, 200u);
  EXPECT_EQ(ask_with(kHeavy, 500), 200u) << "what was counted is given back";
}

}  // namespace
}  // namespace spillway
