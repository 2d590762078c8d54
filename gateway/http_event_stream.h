#pragma once

#include <boost/asio/awaitable.hpp>
#include <string>

#include "gateway/http_reply.h"
#include "gateway/http_stream.h"

// The answer that is an event stream: its header, then text in chunks; to HTTP/1.0 bare, until the connection closes.
// Http thread. REQUIRES: the caller sets the time limit, and nothing else writes meanwhile.
namespace spillway {

boost::asio::awaitable<boost::system::error_code> write_event_stream_head(HttpStream& stream, const HttpReply& reply,
                                                                          bool keep_alive);
boost::asio::awaitable<boost::system::error_code> write_event_stream(HttpStream& stream, unsigned http_version,
                                                                     std::string text, bool last);

}  // namespace spillway
