#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/asio/ssl/stream.hpp>
#include <optional>
#include <utility>

#include "common/clock.h"

namespace spillway {

// One connection's bytes, plain or over TLS: an AsyncReadStream and AsyncWriteStream of Asio, one read and one write at
// a time. One time limit lies over both: what is under way or begins when it has passed fails with operation_aborted,
// and overdue() tells why. The connection is still open then, so that a client can be told (408). Of a client that
// takes what is written at some pace the limit is renewed. Http thread.
class HttpStream {
 public:
  using executor_type = boost::asio::ip::tcp::socket::executor_type;

  // `tls`: nullptr for plain TCP; outlives the stream.
  HttpStream(boost::asio::ip::tcp::socket socket, boost::asio::ssl::context* tls);
  HttpStream(const HttpStream&) = delete;
  HttpStream& operator=(const HttpStream&) = delete;

  executor_type get_executor() { return socket_.get_executor(); }
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) {
    if (tls_) return tls_->async_read_some(buffers, std::forward<Token>(token));
    return socket_.async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) {
    return boost::asio::async_compose<Token, void(boost::system::error_code, size_t)>(
        [this, buffers, begun = false](auto& self, boost::system::error_code error = {}, size_t bytes = 0) mutable {
          if (begun) {
            note_written(bytes);
            return self.complete(error, bytes);
          }
          begun = true;
          tls_ ? tls_->async_write_some(buffers, std::move(self)) : socket_.async_write_some(buffers, std::move(self));
        },
        token, socket_);
  }

  bool secure() const { return tls_.has_value(); }
  // Before anything else where secure(). A client that speaks plain HTTP fails it with is_plain_http(), and the stream
  // is a plain one from then on, so that it can be told.
  boost::asio::awaitable<boost::system::error_code> handshake();
  static bool is_plain_http(const boost::system::error_code& error);
  // Nothing more is written: close_notify, which the client may answer within the limit, and FIN.
  boost::asio::awaitable<void> end_sending();
  // Takes and drops what the client still sends, until it ends or the limit has passed.
  boost::asio::awaitable<void> drain();

  void limit(Duration from_now) {
    until_ = steady_now() + from_now;
    renewed_for_ = {};
  }
  // For a write: the limit begins anew whenever another kPaceBytes of it were taken.
  void limit_pace(Duration each) {
    limit(each);
    renewed_for_ = each;
    taken_ = 0;
  }
  void no_limit() { until_ = kNever; }
  bool overdue() const { return steady_now() >= until_; }
  void end_overdue();  // REQUIRES: called again and again: it ends what is under way if that is overdue()
  void cancel();       // what is under way
  void close();        // at once; the kernel still offers the client what was written
  void reset();        // at once, and what the client has not taken is dropped: RST

  static constexpr size_t kPaceBytes = 64 << 10;

 private:
  void note_written(size_t bytes);

  boost::asio::ip::tcp::socket socket_;
  std::optional<boost::asio::ssl::stream<boost::asio::ip::tcp::socket&>> tls_;
  TimePoint until_ = kNever;
  Duration renewed_for_{};  // zero: the limit is not renewed
  size_t taken_ = 0;        // of kPaceBytes
};

}  // namespace spillway
