#include "gateway/http_event_stream.h"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/chunk_encode.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/serializer.hpp>
#include <boost/beast/http/write.hpp>
#include <tuple>

namespace spillway {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

}  // namespace

asio::awaitable<error_code> write_event_stream_head(HttpStream& stream, const HttpReply& reply, bool keep_alive) {
  http::response<http::empty_body> head(http::status::ok, reply.http_version());
  reply.set_common(head);
  head.set(http::field::content_type, "text/event-stream; charset=utf-8");
  head.set(http::field::cache_control, "no-cache");
  head.set("X-Accel-Buffering", "no");  // nginx would collect the tokens
  head.keep_alive(keep_alive);
  head.chunked(reply.http_version() != 10);
  http::response_serializer<http::empty_body> serializer(head);
  error_code error;
  std::tie(error, std::ignore) = co_await http::async_write_header(stream, serializer, kNoThrow);
  co_return error;
}

asio::awaitable<error_code> write_event_stream(HttpStream& stream, unsigned http_version, std::string text, bool last) {
  error_code error;
  if (http_version == 10) {
    std::tie(error, std::ignore) = co_await asio::async_write(stream, asio::buffer(text), kNoThrow);
    co_return error;
  }
  std::tie(error, std::ignore) =
      co_await asio::async_write(stream, http::make_chunk(asio::const_buffer(asio::buffer(text))), kNoThrow);
  if (!error && last)
    std::tie(error, std::ignore) = co_await asio::async_write(stream, http::make_chunk_last(), kNoThrow);
  co_return error;
}

}  // namespace spillway
