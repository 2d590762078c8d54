#include <boost/asio/buffer.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/serializer.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "common/check.h"
#include "gateway/http_framing.h"
#include "gateway/http_reply.h"
#include "gateway/http_server.h"
#include "tests/fuzz/fuzz_input.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

// What goes over the wire.
std::string wire(HttpResponse response) {
  response.prepare_payload();
  http::response_serializer<http::string_body> serializer(response);
  std::string out;
  for (error_code error; !serializer.is_done();) {
    serializer.next(error, [&](error_code& failed, const auto& buffers) {
      failed = {};
      out += boost::beast::buffers_to_string(buffers);
      serializer.consume(boost::beast::buffer_bytes(buffers));
    });
    CHECK(!error);
  }
  return out;
}

// A client reads the reply as one message, with the same status and no more bytes behind it: nothing of the request
// broke out of a header. Its body is an error in OpenAI's shape.
void check_reply(const HttpResponse& response, bool head) {
  const std::string bytes = wire(response);
  http::response_parser<http::string_body> parser;
  parser.eager(true);
  error_code error;
  const size_t read = parser.put(asio::buffer(bytes), error);
  CHECK(!error && parser.is_done() && read == bytes.size());
  CHECK(parser.get().result_int() == response.result_int() && response.result_int() >= 400);
  if (head && parser.get().body().empty()) return;
  const auto told = nlohmann::json::parse(parser.get().body(), nullptr, false);
  CHECK(told.is_object() && told.at("error").at("message").is_string());
}

// As HttpSession sets its parser up and answers, less the socket. The request, once its header is whole. (Where in a
// broken or unfinished header Beast gives up does depend on the pieces.)
std::string answer(std::string_view bytes, size_t piece_bytes) {
  const HttpConfig limits;
  http::request_parser<ArrivingBody> parser;
  parser.header_limit(static_cast<uint32_t>(limits.header_bytes_max));
  parser.body_limit(limits.body_bytes_max);
  parser.eager(true);
  error_code error;
  size_t begin = 0, end = 0;
  while (begin < bytes.size() && !parser.is_done()) {
    end = std::min(end + piece_bytes, bytes.size());
    begin += parser.put(asio::buffer(bytes.data() + begin, end - begin), error);
    if (error == http::error::need_more && end < bytes.size()) error = {};
    if (error) break;
  }
  const HttpRequest& request = parser.get();
  const HttpReply reply(request, "own-name");
  const bool head = parser.is_header_done() && request.method() == http::verb::head;
  if (error && error != http::error::need_more)
    check_reply(reply.unreadable(error, limits.header_bytes_max, limits.body_bytes_max), head);
  if (!parser.is_header_done()) return "no header";
  // What is taken has one end only, whoever reads it.
  const std::string_view fault = framing_fault(request);
  if (fault.empty()) {
    CHECK(parser.chunked() == (request.count(http::field::transfer_encoding) > 0));
    CHECK(parser.content_length().has_value() == (request.count(http::field::content_length) > 0));
    CHECK(!parser.chunked() || !parser.content_length());
    CHECK(request.version() == 10 || request.count(http::field::host) == 1);
  } else {
    check_reply(reply.malformed(fault), head);
  }
  CHECK(!awaits_continue(request) || request.count(http::field::expect) > 0);
  if (const auto refusal = reply.refuse(request)) check_reply(*refusal, head);
  check_reply(reply.unauthorized(request), head);
  CHECK(reply.request_name().size() <= 128 && !reply.request_name().empty());
  return std::string(request.method_string()) + std::string(request.target()) + reply.request_name() +
         std::string(fault) + (awaits_continue(request) ? "continue" : "") +
         (parser.is_done() ? request.body() : "no end");
}

}  // namespace
}  // namespace spillway

// The bytes of a connection: what the session makes of them does not depend on how they arrive.
int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto bytes = spillway::input_text(data, size);
  CHECK(spillway::answer(bytes, SIZE_MAX / 2) == spillway::answer(bytes, 7));
  return 0;
}
