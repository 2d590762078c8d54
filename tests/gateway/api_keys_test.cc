#include "gateway/api_keys.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/gateway/ask.h"
#include "tests/gateway/loop_scripts.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::byte, 32> kSecret{std::byte{1}};
constexpr std::string_view kText = "/v1/completions", kBody = R"({"prompt":"abc"})";

HttpConfig with_keys(const std::vector<std::string>& keys) {
  HttpConfig config;
  config.keys = ApiKeys(keys, kSecret);
  return config;
}
std::string shows(std::string_view key) { return fmt::format("Authorization: Bearer {}\r\n", key); }

TEST(ApiKeys, OnlyWholeKeysOfTheBearerSchemeAreFound) {
  const std::vector<std::string> list{"alpha", "beta"};
  const ApiKeys keys(list, kSecret);
  for (const char* const good : {"Bearer alpha", "bearer beta", "BEARER  alpha"}) EXPECT_NE(keys.find(good), nullptr);
  for (const char* const bad : {"", "alpha", "Bearer", "Bearer ", "Bearer alph", "Bearer alphab", "Bearer alpha ",
                                "Bearer alpha beta", "Basic alpha", "Bearer ALPHA", "Bearer:alpha"})
    EXPECT_EQ(keys.find(bad), nullptr) << bad;
  EXPECT_FALSE(ApiKeys().asked_for());
  EXPECT_EQ(ApiKeys().find("Bearer alpha"), nullptr);
}

TEST(ApiKeys, ATenantIsThatOfItsKeyAndTheSecret) {
  const std::vector<std::string> list{"alpha", "beta"}, other_order{"beta", "alpha"};
  const ApiKeys keys(list, kSecret), again(other_order, kSecret);
  EXPECT_EQ(*keys.find("Bearer alpha"), *again.find("Bearer alpha"));
  EXPECT_NE(*keys.find("Bearer alpha"), *keys.find("Bearer beta"));
  const ApiKeys elsewhere(list, std::array<std::byte, 32>{std::byte{2}});
  EXPECT_NE(*keys.find("Bearer alpha"), *elsewhere.find("Bearer alpha"));
}

TEST(ApiKeys, EveryPathButHealthAsksForOne) {
  FakeLoop loop(says("x"), with_keys({"alpha"}));
  for (const std::string path : {"/v1/models", "/metrics", "/version", "/v1/nothing", "/healthy"}) {
    const RawReply reply = fetch(loop, path);
    EXPECT_EQ(reply.status, 401u) << path;
    EXPECT_EQ(reply.headers.at("www-authenticate"), "Bearer");
    const Json error = Json::parse(reply.body)["error"];
    EXPECT_EQ(error["type"], "invalid_request_error");
    EXPECT_EQ(error["code"], "invalid_api_key");
    EXPECT_EQ(fetch(loop, path, shows("wrong")).status, 401u);
    EXPECT_NE(fetch(loop, path, shows("alpha")).status, 401u);
  }
  for (const std::string path : {"/health", "/health/live", "/health/ready"})
    EXPECT_EQ(fetch(loop, path).status, 200u) << path;
  EXPECT_EQ(ask(loop, kText, kBody).status, 401u);
  EXPECT_EQ(ask(loop, kText, kBody, shows("alpha")).status, 200u);
  EXPECT_EQ(loop.arrived().size(), 1u);
}

TEST(ApiKeys, ARefusalDoesNotWaitForTheBody) {
  FakeLoop loop(says("x"), with_keys({"alpha"}));
  RawClient client(loop.port());
  client.send("POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 900\r\n" +
              shows("wrong") + "\r\n");
  EXPECT_EQ(client.read_reply().value_or(RawReply{}).status, 401u);
  RawClient expects(loop.port());
  expects.send(
      "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\nContent-Length: 900\r\n"
      "Expect: 100-continue\r\n\r\n");
  EXPECT_EQ(expects.read_reply().value_or(RawReply{}).status, 401u) << "no 100 comes first";
}

TEST(ApiKeys, TheKeyOfEachRequestChoosesItsTenant) {
  FakeLoop loop(says("x"), with_keys({"alpha", "beta"}));
  RawClient client(loop.port());  // one connection, several keys
  for (const char* const key : {"alpha", "beta", "alpha"}) {
    client.post(kText, kBody, shows(key));
    ASSERT_TRUE(client.read_reply());
  }
  const std::vector<GenerateRequest> works = loop.arrived();
  EXPECT_EQ(works.at(0).tenant, works.at(2).tenant);
  EXPECT_NE(works.at(0).tenant, works.at(1).tenant);
}

TEST(ApiKeys, WithoutKeysThereIsOneTenant) {
  FakeLoop loop(says("x"));
  EXPECT_EQ(ask(loop, kText, kBody).status, 200u);
  EXPECT_EQ(ask(loop, kText, kBody, shows("whatever")).status, 200u);
  EXPECT_EQ(loop.arrived().at(0).tenant, loop.arrived().at(1).tenant);
  EXPECT_EQ(loop.arrived().at(0).tenant.bytes[0], std::byte{7}) << "the model's";
}

}  // namespace
}  // namespace spillway
