#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "tests/gateway/fake_loop.h"
#include "tests/gateway/raw_client.h"

namespace spillway {

// One request on a connection of its own. `headers`: whole lines.
inline RawReply ask(FakeLoop& loop, std::string_view path, std::string_view body, std::string_view headers = "") {
  RawClient client(loop.port());
  EXPECT_TRUE(client.post(path, body, headers));
  const auto reply = client.read_reply();
  EXPECT_TRUE(reply) << "the connection ended without a whole reply";
  return reply.value_or(RawReply{});
}
inline RawReply fetch(FakeLoop& loop, std::string_view path, std::string_view headers = "") {
  RawClient client(loop.port());
  EXPECT_TRUE(client.get(path, headers));
  return client.read_reply().value_or(RawReply{});
}
inline std::string error_code_of(const RawReply& reply) { return nlohmann::json::parse(reply.body)["error"]["code"]; }

}  // namespace spillway
