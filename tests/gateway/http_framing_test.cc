#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "tests/gateway/fake_loop.h"
#include "tests/gateway/loop_scripts.h"
#include "tests/gateway/raw_client.h"

namespace spillway {
namespace {

using Json = nlohmann::json;

std::string post_head(const std::string& headers) {
  return "POST /v1/completions HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n" + headers + "\r\n";
}

// Another reader of the same bytes, a proxy in front, may see other requests in them.
TEST(HttpFraming, AHeaderThatTwoReadersMayUnderstandDifferentlyEndsTheConnection) {
  const std::string chunk = "e\r\n{\"prompt\":\"a\"}\r\n0\r\n\r\n", body = R"({"prompt":"a"})";
  const std::vector<std::pair<const char*, std::string>> shapes = {
      {"unknown_coding", post_head("Transfer-Encoding: gzip\r\n")},
      {"identity", post_head("Transfer-Encoding: identity\r\n")},
      {"no_coding", post_head("Transfer-Encoding:\r\n")},
      {"nearly_chunked", post_head("Transfer-Encoding: xchunked\r\n") + chunk},
      {"chunked_first", post_head("Transfer-Encoding: chunked, gzip\r\n") + chunk},
      {"chunked_last", post_head("Transfer-Encoding: gzip, chunked\r\n") + chunk},
      {"chunked_twice", post_head("Transfer-Encoding: chunked, chunked\r\n") + chunk},
      {"two_codings", post_head("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n") + chunk},
      {"coding_and_length", post_head("Transfer-Encoding: gzip\r\nContent-Length: 14\r\n") + body},
      {"chunks_and_length", post_head("Transfer-Encoding: chunked\r\nContent-Length: 14\r\n") + chunk},
      {"equal_lengths", post_head("Content-Length: 14\r\nContent-Length: 14\r\n") + body},
      {"list_of_lengths", post_head("Content-Length: 14, 14\r\n") + body},
      {"space_before_colon", post_head("Content-Length : 14\r\n") + body},
      {"chunks_of_old_http",
       "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nConnection: keep-alive\r\n"
       "Transfer-Encoding: chunked\r\n\r\n" +
           chunk},
      {"two_hosts", "GET /health/live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"},
      {"older_than_old", "GET /health/live HTTP/0.9\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"},
      {"newer", "GET /health/live HTTP/1.9\r\nHost: a\r\n\r\n"},
      {"no_host", "GET /health/live HTTP/1.1\r\n\r\n"},
  };
  FakeLoop loop(says("x"));
  for (const auto& [name, bytes] : shapes) {
    SCOPED_TRACE(name);
    RawClient client(loop.port());
    client.send(bytes + "GET /version HTTP/1.1\r\nHost: t\r\n\r\n");
    const auto reply = client.read_reply();
    ASSERT_TRUE(reply);
    EXPECT_EQ(reply->status, 400u);
    EXPECT_EQ(Json::parse(reply->body)["error"]["code"], "malformed_http");
    EXPECT_TRUE(client.at_end()) << "what followed was read as a request";
  }
  EXPECT_TRUE(loop.arrived().empty());
}

TEST(HttpFraming, OldHttpIsNeverToldToContinue) {
  FakeLoop loop(says("x"));
  RawClient client(loop.port());
  client.send(
      "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
      "Content-Length: 14\r\n\r\n{\"prompt\":\"a\"}");
  EXPECT_EQ(client.read_reply().value_or(RawReply{}).status, 200u);
}

}  // namespace
}  // namespace spillway
