#include "gateway/http_stream.h"

#include <openssl/err.h>
#include <openssl/sslerr.h>

#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace spillway {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);

}  // namespace

HttpStream::HttpStream(asio::ip::tcp::socket socket, asio::ssl::context* tls) : socket_(std::move(socket)) {
  if (tls != nullptr) tls_.emplace(socket_, *tls);
}

asio::awaitable<error_code> HttpStream::handshake() {
  const auto [error] = co_await tls_->async_handshake(asio::ssl::stream_base::server, kNoThrow);
  if (is_plain_http(error)) tls_.reset();
  co_return error;
}

bool HttpStream::is_plain_http(const error_code& error) {
  return error.category() == asio::error::get_ssl_category() &&
         ERR_GET_REASON(static_cast<unsigned long>(error.value())) == SSL_R_HTTP_REQUEST;
}

asio::awaitable<void> HttpStream::end_sending() {
  if (tls_ && socket_.is_open()) co_await tls_->async_shutdown(kNoThrow);
  error_code ignored;
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

asio::awaitable<void> HttpStream::drain() {
  std::array<char, 4096> dropped;
  error_code error;
  while (!error && !overdue() && socket_.is_open())
    error = std::get<0>(co_await socket_.async_read_some(asio::buffer(dropped), kNoThrow));
}

// What has passed its limit stays overdue.
void HttpStream::note_written(size_t bytes) {
  if (renewed_for_ == Duration{} || overdue()) return;
  taken_ += bytes;
  if (taken_ < kPaceBytes) return;
  taken_ = 0;
  until_ = steady_now() + renewed_for_;
}

void HttpStream::end_overdue() {
  if (overdue()) cancel();
}

void HttpStream::cancel() {
  error_code ignored;
  if (socket_.is_open()) socket_.cancel(ignored);
}

// A client that takes nothing would else hold the kernel's send buffer for minutes after it was given up.
void HttpStream::reset() {
  error_code ignored;
  socket_.set_option(asio::socket_base::linger(true, 0), ignored);
  close();
}

void HttpStream::close() {
  error_code ignored;
  socket_.close(ignored);
}

}  // namespace spillway
