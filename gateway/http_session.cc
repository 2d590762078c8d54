#include "gateway/http_session.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/write.hpp>
#include <exception>
#include <typeinfo>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "gateway/http_framing.h"
#include "gateway/http_page.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 4096;          // of one read while a request is under way
constexpr size_t kBodyReadBytes = 64 << 10;  // Beast reads bodies in pieces of at most this
const error_code kNoBodyRoom = make_error_code(boost::system::errc::not_enough_memory);
constexpr auto kTurnWaitMax = std::chrono::seconds(30);
// Of a turn on the parse pool: bytes of a body, and what takes as long as they do.
constexpr uint64_t kTurnCost = 1024, kScoredTokenCost = 256;
constexpr auto kLinger = std::chrono::seconds(2);  // for a client that still sends what was refused

uint64_t random_seed() {
  uint64_t seed = 0;
  CHECK(::getrandom(&seed, sizeof seed, 0) == static_cast<ssize_t>(sizeof seed));
  return seed;
}

// Runs on the parse pool.
asio::awaitable<Parsed<ApiCall>> parse_on_pool(std::string path, std::string body, const ServedModel& model,
                                               uint32_t max_model_len, const HttpRequestLog& log,
                                               const std::string& request_name) {
  try {
    co_return parse_api_call(path, body, model, max_model_len, random_seed());
  } catch (const std::exception& error) {
    log.fault(typeid(error).name());  // what() may quote the body
    co_return tl::unexpected(to_api_error({ErrorCode::kInternal, "the request could not be read"}, request_name));
  }
}

// Runs on the parse pool.
asio::awaitable<std::string> body_on_pool(OpenAiAnswer& answer) { co_return answer.body(); }

}  // namespace

ApiError HttpSession::turn_did_not_come() { return busy("too many requests wait to be read: try again"); }

HttpSession::HttpSession(HttpShared& shared, asio::ip::tcp::socket socket, Admission admission)
    : shared_(shared),
      stream_(std::move(socket), shared.tls()),
      admission_(admission),
      buffer_(shared.config().header_bytes_max + kBodyReadBytes + kReadBytes),
      wake_(stream_.get_executor(), asio::steady_timer::time_point::max()) {}

asio::awaitable<void> HttpSession::run() {
  bool fault = false;
  try {
    if (co_await open()) {
      while (co_await serve_one()) continue;
    }
  } catch (const std::exception& error) {
    log_.fault(error.what());
    fault = true;
  }
  if (fault) co_await end_by_fault();
  co_await end_watch();
  if (!gone_) unfinished_since_ = steady_now();
  stream_.limit(kLinger);
  co_await stream_.end_sending();
}

// Whoever waits for an answer is told that there is none, once.
asio::awaitable<void> HttpSession::end_by_fault() {
  cancel_all();
  keep_alive_ = false;
  try {
    if (!answered_ && !gone_) {
      const ApiError told = to_api_error({ErrorCode::kInternal, "a fault of the server"}, reply_.request_name());
      co_await reply(reply_.error(told));
      co_return;
    }
  } catch (const std::exception& error) {
    log_.fault(error.what());
  }
  leave("a fault of the server");
}

asio::awaitable<bool> HttpSession::open() {
  if (!stream_.secure()) co_return true;
  stream_.limit(shared_.config().request_timeout);
  idle_since_ = steady_now();
  const error_code error = co_await stream_.handshake();
  idle_since_.reset();
  limited_ = !error;
  if (!error) co_return true;
  shared_.metrics().observe_tls_failure();
  spdlog::debug("tls_handshake_failed what=\"{}\"", stream_.overdue() ? "too slow" : error.message());
  if (!HttpStream::is_plain_http(error)) co_return false;
  id_ = shared_.next_request();
  reply_ = HttpReply({}, id_text(id_));
  log_ = HttpRequestLog(id_, {});
  // Not within co_await: GCC 12 frees such temporaries twice.
  const ApiError told{.status = 400, .message = "this port speaks TLS: use https://", .code = "tls_required"};
  co_return co_await refuse_unread(reply_.error(told));
}

asio::awaitable<bool> HttpSession::serve_one() {
  const HttpConfig& config = shared_.config();
  release_body();
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(config.header_bytes_max));
  parser_->body_limit(config.body_bytes_max);
  // A first request shares the limit of its handshake.
  if (!std::exchange(limited_, false)) stream_.limit(config.request_timeout);
  idle_since_ = steady_now();
  unfinished_since_.reset();
  error_code error;
  std::tie(error, std::ignore) = co_await http::async_read_header(stream_, buffer_, *parser_, kNoThrow);
  const bool silent = idle();
  if (!silent) note_first_byte();
  if (!error) stream_.limit(*unfinished_since_ + config.request_timeout - steady_now());
  idle_since_.reset();
  const HttpRequest& request = parser_->get();
  id_ = shared_.next_request();
  reply_ = HttpReply(request, id_text(id_));
  log_ = HttpRequestLog(id_, request);
  keep_alive_ = request.keep_alive() && admission_ == Admission::kFull;
  answered_ = false;
  if (!error) {
    if (const std::string_view fault = framing_fault(request); !fault.empty())
      co_return co_await refuse_unread(reply_.malformed(fault));
    std::optional<HttpResponse> refusal = refuse(request);
    if (refusal) {
      if (parser_->is_done()) co_return co_await reply(std::move(*refusal));
      co_return co_await refuse_unread(std::move(*refusal));
    }
    if (awaits_continue(request)) {
      http::response<http::empty_body> go_on(http::status::continue_, reply_.http_version());
      std::tie(error, std::ignore) = co_await http::async_write(stream_, go_on, kNoThrow);
    }
  }
  if (!error) error = co_await read_body();
  if (error == kNoBodyRoom) {
    parser_->get().body() = std::string();  // {} would keep the memory
    release_body();
    co_return co_await refuse_unread(reply_.error(busy("too many large requests at once: try again")));
  }
  if (error && stream_.overdue()) {
    if (silent) co_return false;
    const bool header = !parser_->is_header_done();
    co_return co_await refuse_unread(
        reply_.too_slow(header ? "header" : "body", seconds(header ? header_timeout() : config.request_timeout)));
  }
  if (error) {
    const bool spoke_http = error.category() == http::make_error_code(http::error::bad_method).category();
    if (!spoke_http || error == http::error::end_of_stream || error == http::error::partial_message) co_return false;
    co_return co_await refuse_unread(reply_.unreadable(error, config.header_bytes_max, config.body_bytes_max));
  }
  std::string path(path_of(request.target()));
  if (request.method() == http::verb::post) co_return co_await serve_call(std::move(path));
  co_return co_await reply(page_of(path, reply_, shared_));
}

void HttpSession::end_overdue() {
  if (idle_since_ && !idle() && !unfinished_since_) {
    note_first_byte();
    stream_.limit(header_timeout());
  }
  stream_.end_overdue();
}

Duration HttpSession::header_timeout() const {
  return std::min(shared_.config().header_timeout, shared_.config().request_timeout);
}

// Known to the precision of end_overdue().
void HttpSession::note_first_byte() {
  if (!unfinished_since_) unfinished_since_ = steady_now();
}

std::optional<HttpResponse> HttpSession::refuse(const HttpRequest& request) {
  const ApiKeys& keys = shared_.config().keys;
  tenant_ = &shared_.model().tenant();
  if (keys.asked_for() && needs_key(path_of(request.target()))) {
    tenant_ = keys.find(request[http::field::authorization]);
    if (tenant_ == nullptr) return reply_.unauthorized(request);
  }
  std::optional<HttpResponse> refusal = reply_.refuse(request);
  if (!refusal && shared_.draining() && request.method() == http::verb::post) return reply_.error(draining());
  return refusal;
}

asio::awaitable<error_code> HttpSession::read_body() {
  parser_->eager(true);
  error_code error;
  while (!error && !parser_->is_done()) {
    std::tie(error, std::ignore) = co_await http::async_read_some(stream_, buffer_, *parser_, kNoThrow);
    const size_t arrived = parser_->get().body().size() - body_bytes_;
    if (!shared_.bodies().take(tenant_id(*tenant_), arrived)) co_return kNoBodyRoom;
    body_bytes_ += arrived;
  }
  co_return error;
}

void HttpSession::release_body() {
  if (body_bytes_ > 0) shared_.bodies().give(tenant_id(*tenant_), std::exchange(body_bytes_, 0));
}

asio::awaitable<bool> HttpSession::reply(HttpResponse response) {
  const bool another = keep_alive_ && !shutting_down_ && !shared_.draining();
  response.keep_alive(another);
  response.prepare_payload();
  shared_.metrics().observe_response(response.result_int());
  if (parser_ && response.result_int() >= 400) log_.refused(response.result_int(), parser_->get());
  stream_.limit_pace(shared_.config().write_timeout);
  answered_ = true;
  error_code error;
  std::tie(error, std::ignore) = co_await http::async_write(stream_, response, kNoThrow);
  if (error && stream_.overdue()) stream_.reset();
  stream_.no_limit();
  co_return !error && another;
}

// Closing on a client that still sends would reset the connection, and it might never see the answer: so first its
// bytes are taken and dropped, for a while.
asio::awaitable<bool> HttpSession::refuse_unread(HttpResponse response) {
  keep_alive_ = false;
  co_await reply(std::move(response));
  stream_.limit(kLinger);
  co_await stream_.end_sending();
  co_await stream_.drain();
  co_return false;
}

asio::awaitable<bool> HttpSession::serve_call(std::string path) {
  if (admission_ == Admission::kHealthOnly)
    co_return co_await reply(reply_.error(busy("too many connections: try again")));
  std::string body = std::move(parser_->get().body());
  in_flight_ = watching_ = true;
  unfinished_since_.reset();
  stream_.no_limit();
  asio::co_spawn(stream_.get_executor(), watch_client(), asio::detached);
  std::optional<Parsed<ApiCall>> call = co_await parse_in_turn(std::move(path), std::move(body));
  if (!call) call = tl::unexpected(turn_did_not_come());
  release_body();
  bool another = false;
  if (!gone_) {
    if (!*call) {
      another = co_await reply(reply_.error(call->error()));
    } else {
      another = co_await answer_call(std::move(**call));
    }
  }
  co_await end_watch();
  co_return another && !gone_;
}

class HttpSession::Turn {
 public:
  Turn(HttpShared& shared, const QueuedRequest& asked, HttpSession& session)
      : shared_(shared), request_(asked.request) {
    session.turn_begun_ = false;
    shared.ask_turn(asked, session);
  }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;
  ~Turn() { shared_.end_turn(request_); }

 private:
  HttpShared& shared_;
  const RequestId request_;
};

void HttpSession::begin_turn() {
  turn_begun_ = true;
  wake_.cancel();
}

asio::awaitable<bool> HttpSession::turn_begins() {
  const TimePoint until = steady_now() + kTurnWaitMax;
  wake_.expires_at(until);
  while (!turn_begun_ && !gone_ && steady_now() < until) co_await wake_.async_wait(kNoThrow);
  wake_.expires_at(kNever);
  co_return turn_begun_ && !gone_;
}

asio::awaitable<std::optional<Parsed<ApiCall>>> HttpSession::parse_in_turn(std::string path, std::string body) {
  const Turn turn(shared_, {id_, tenant_id(*tenant_), kTurnCost + body.size()}, *this);
  if (!co_await turn_begins()) co_return std::nullopt;
  co_return co_await asio::co_spawn(shared_.parse_pool(),
                                    parse_on_pool(std::move(path), std::move(body), shared_.model(),
                                                  shared_.max_model_len(), log_, reply_.request_name()),
                                    asio::use_awaitable);
}

asio::awaitable<std::optional<std::string>> HttpSession::body_in_turn(OpenAiAnswer& answer) {
  const Turn turn(shared_, {id_, tenant_id(*tenant_), kTurnCost + answer.scored_tokens() * kScoredTokenCost}, *this);
  if (!co_await turn_begins()) co_return std::nullopt;
  co_return co_await asio::co_spawn(shared_.parse_pool(), body_on_pool(answer), asio::use_awaitable);
}

void HttpSession::shut_down(const std::string& why) {
  shutting_down_ = true;
  if (submitted()) {
    fail_all({ErrorCode::kUnavailable, why});
  } else if (!in_flight_) {
    leave(why);
  }
}

void HttpSession::leave(std::string_view why) {
  if (gone_) return;
  gone_ = true;
  idle_since_.reset();
  unfinished_since_.reset();
  if (submitted()) {
    cancel_all();
    log_.cancelled(why);
  }
  stream_.close();
  wake_.cancel();
}

void HttpSession::give_up(std::string_view why) {
  stream_.reset();
  leave(why);
}

asio::awaitable<bool> HttpSession::wait_event(TimePoint until) {
  wake_.expires_at(until);
  error_code woken = asio::error::operation_aborted;
  while (!failed_ && !answer_->done() && (!streams_ || unsent_.empty()) && !gone_ && woken)
    woken = std::get<0>(co_await wake_.async_wait(kNoThrow));
  wake_.expires_at(kNever);
  co_return !gone_;
}

// This read has no time limit of its own, only while an answer is written beside it.
asio::awaitable<void> HttpSession::watch_client() {
  while (in_flight_ && !gone_) {
    if (buffer_.size() > shared_.config().header_bytes_max) {
      leave("the client sent too much beside its request");
      break;
    }
    error_code error;
    size_t bytes = 0;
    std::tie(error, bytes) = co_await stream_.async_read_some(buffer_.prepare(kReadBytes), kNoThrow);
    if (!error) buffer_.commit(bytes);
    // Its time was that of a write which ended just now, before this thread came to it.
    if (error == asio::error::operation_aborted && in_flight_ && !stream_.overdue()) continue;
    if (error && in_flight_) stream_.overdue() ? give_up("the client takes nothing") : leave("the client left");
    if (error) break;
  }
  watching_ = false;
  wake_.cancel();
}

asio::awaitable<void> HttpSession::end_watch() {
  in_flight_ = false;
  answer_ = nullptr;
  failed_.reset();
  unsent_ = std::string();  // {} would keep the memory
  hold_answer(0);
  if (watching_) {
    stream_.limit({});  // for a read that goes on just now: one of TLS may be between two of the socket
    stream_.cancel();
  }
  while (watching_) co_await wake_.async_wait(kNoThrow);
  stream_.no_limit();
}

}  // namespace spillway
