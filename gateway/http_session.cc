#include "gateway/http_session.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/rfc7230.hpp>
#include <boost/beast/http/write.hpp>
#include <ctime>
#include <exception>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "gateway/api_choices.h"
#include "gateway/http_event_stream.h"
#include "gateway/http_page.h"
#include "gateway/sse.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr size_t kReadBytes = 4096;          // of one read while a request is under way
constexpr size_t kBodyReadBytes = 64 << 10;  // Beast reads bodies in pieces of at most this
constexpr size_t kWriteBytes = 64 << 10;     // of one write to a stream, and one event more
const error_code kNoBodyRoom = make_error_code(boost::system::errc::not_enough_memory);
constexpr auto kLinger = std::chrono::seconds(2);  // for a client that still sends what was refused
std::string id_text(const RequestId& id) {
  return fmt::format("{:016x}{:x}", static_cast<uint64_t>(id.boot), id.counter);
}

int64_t unix_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

uint64_t random_seed() {
  uint64_t seed = 0;
  CHECK(::getrandom(&seed, sizeof seed, 0) == static_cast<ssize_t>(sizeof seed));
  return seed;
}

// Runs on the parse pool.
asio::awaitable<Parsed<ApiCall>> parse_on_pool(std::string path, std::string body, const ServedModel& model,
                                               uint32_t max_model_len) {
  try {
    co_return parse_api_call(path, body, model, max_model_len, random_seed());
  } catch (const std::exception& error) {
    spdlog::error("parse_failed what={}", error.what());
    co_return tl::unexpected(
        ApiError{.status = 500, .message = "the request could not be read", .type = "server_error"});
  }
}

ApiError busy(std::string message) {
  return {
      .status = 503, .message = std::move(message), .type = "server_error", .code = "unavailable", .retry_after_s = 1};
}

}  // namespace

HttpSession::HttpSession(HttpShared& shared, asio::ip::tcp::socket socket, Admission admission)
    : shared_(shared),
      stream_(std::move(socket)),
      admission_(admission),
      buffer_(shared.config().header_bytes_max + kBodyReadBytes + kReadBytes),
      wake_(stream_.get_executor(), asio::steady_timer::time_point::max()) {}

asio::awaitable<void> HttpSession::run() {
  try {
    while (co_await serve_one()) continue;
  } catch (const std::exception& error) {
    spdlog::error("connection_failed what={}", error.what());
    leave("a fault of the server");
  }
  co_await end_watch();
  error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

asio::awaitable<bool> HttpSession::serve_one() {
  const HttpConfig& config = shared_.config();
  release_body();
  parser_.emplace();
  parser_->header_limit(static_cast<uint32_t>(config.header_bytes_max));
  parser_->body_limit(config.body_bytes_max);
  stream_.expires_after(config.request_timeout);
  error_code error;
  std::tie(error, std::ignore) = co_await http::async_read_header(stream_, buffer_, *parser_, kNoThrow);
  const HttpRequest& request = parser_->get();
  id_ = shared_.next_request();
  reply_ = HttpReply(request, id_text(id_));
  keep_alive_ = request.keep_alive() && admission_ == Admission::kFull;
  if (!error) {
    std::optional<HttpResponse> refusal = refuse(request);
    if (refusal) {
      if (parser_->is_done()) co_return co_await reply(std::move(*refusal));
      co_return co_await refuse_unread(std::move(*refusal));
    }
    if (beast::iequals(request[http::field::expect], "100-continue")) {
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
  if (error) {
    const bool spoke_http = error.category() == http::make_error_code(http::error::bad_method).category();
    if (!spoke_http || error == http::error::end_of_stream || error == http::error::partial_message) co_return false;
    co_return co_await refuse_unread(reply_.unreadable(error, config.header_bytes_max, config.body_bytes_max));
  }
  std::string path(path_of(request.target()));
  if (request.method() == http::verb::post) co_return co_await serve_call(std::move(path));
  co_return co_await reply(page_of(path, reply_, shared_));
}

std::optional<HttpResponse> HttpSession::refuse(const HttpRequest& request) {
  const ApiKeys& keys = shared_.config().keys;
  tenant_ = &shared_.model().tenant();
  if (keys.asked_for() && needs_key(path_of(request.target()))) {
    tenant_ = keys.find(request[http::field::authorization]);
    if (tenant_ == nullptr) return reply_.unauthorized(request);
  }
  return reply_.refuse(request);
}

asio::awaitable<error_code> HttpSession::read_body() {
  parser_->eager(true);
  error_code error;
  while (!error && !parser_->is_done()) {
    std::tie(error, std::ignore) = co_await http::async_read_some(stream_, buffer_, *parser_, kNoThrow);
    const size_t arrived = parser_->get().body().size() - body_bytes_;
    if (!shared_.take_body_bytes(arrived)) co_return kNoBodyRoom;
    body_bytes_ += arrived;
  }
  co_return error;
}

void HttpSession::release_body() { shared_.give_body_bytes(std::exchange(body_bytes_, 0)); }

asio::awaitable<bool> HttpSession::reply(HttpResponse response) {
  const bool another = keep_alive_ && !shutting_down_;
  response.keep_alive(another);
  response.prepare_payload();
  shared_.metrics().observe_response(response.result_int());
  stream_.expires_after(shared_.config().write_timeout);
  error_code error;
  std::tie(error, std::ignore) = co_await http::async_write(stream_, response, kNoThrow);
  co_return !error && another;
}

// Closing on a client that still sends would reset the connection, and it might never see the answer: so first its
// bytes are taken and dropped, for a while.
asio::awaitable<bool> HttpSession::refuse_unread(HttpResponse response) {
  keep_alive_ = false;
  co_await reply(std::move(response));
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  buffer_.clear();
  stream_.expires_after(kLinger);
  while (!error)
    std::tie(error, std::ignore) = co_await stream_.async_read_some(buffer_.prepare(kBodyReadBytes), kNoThrow);
  co_return false;
}

asio::awaitable<bool> HttpSession::serve_call(std::string path) {
  if (admission_ == Admission::kHealthOnly)
    co_return co_await reply(reply_.error(busy("too many connections: try again")));
  std::string body = std::move(parser_->get().body());
  in_flight_ = watching_ = true;
  stream_.expires_never();
  asio::co_spawn(stream_.get_executor(), watch_client(), asio::detached);
  Parsed<ApiCall> call = co_await asio::co_spawn(
      shared_.parse_pool(), parse_on_pool(std::move(path), std::move(body), shared_.model(), shared_.max_model_len()),
      asio::use_awaitable);
  release_body();
  bool another = false;
  if (!gone_) {
    if (!call) {
      another = co_await reply(reply_.error(call.error()));
    } else {
      another = co_await answer_call(std::move(*call));
    }
  }
  co_await end_watch();
  co_return another && !gone_;
}

asio::awaitable<bool> HttpSession::answer_call(ApiCall call) {
  const auto& ignored = std::visit(
      [](const auto& one) -> const auto& { return one.ignored; }, call);
  if (!ignored.empty())
    reply_.warn(fmt::format("299 spillway \"unknown fields ignored: {}\"", fmt::join(ignored, ", ")));
  if (auto* const plain = std::get_if<PlainAnswer>(&call))
    co_return co_await reply(reply_.json(std::move(plain->body)));
  co_return co_await answer(std::get<ApiRequest>(std::move(call)));
}

asio::awaitable<bool> HttpSession::answer(ApiRequest request) {
  if (shutting_down_) co_return co_await reply(reply_.error(busy("the server is shutting down")));
  OpenAiAnswer answer(answer_head(request), shared_.model().tokenizer(), answer_shape(request));
  if (!submit(request)) co_return co_await reply(reply_.error(busy("the gateway is overloaded: try again")));
  if (request.stream) co_return co_await answer_stream(answer);
  co_return co_await answer_whole(answer);
}

AnswerHead HttpSession::answer_head(const ApiRequest& request) const {
  AnswerHead head;
  head.endpoint = request.endpoint;
  head.id = (request.endpoint == Endpoint::kCompletions ? "cmpl-" : "chatcmpl-") + id_text(id_);
  head.model = request.model;
  head.created = unix_seconds();
  head.usage_null = request.include_usage;
  return head;
}

asio::awaitable<bool> HttpSession::answer_whole(OpenAiAnswer& answer) {
  while (co_await wait_event()) {
    const StreamEvent event = std::move(events_.front());
    events_.pop_front();
    if (const auto* const failed = std::get_if<StreamError>(&event))
      co_return co_await reply(reply_.error(to_api_error(failed->error, reply_.request_name())));
    tell(answer, event, nullptr);
    if (answer.done()) co_return co_await reply(reply_.json(answer.body()));
  }
  co_return false;
}

asio::awaitable<bool> HttpSession::answer_stream(OpenAiAnswer& answer) {
  // The header waits for the first event, so that a request refused in the queue gets its own status: but no longer
  // than until the first ping.
  const Duration silence = shared_.config().stream_silence_max;
  if (!co_await wait_event(steady_now() + silence)) co_return false;
  if (const auto* const failed = events_.empty() ? nullptr : std::get_if<StreamError>(&events_.front()))
    co_return co_await reply(reply_.error(to_api_error(failed->error, reply_.request_name())));
  if (!co_await write_stream_head()) co_return false;
  for (TimePoint ping_at = steady_now(); co_await wait_event(ping_at); ping_at = steady_now() + silence) {
    std::string out(events_.empty() ? kSsePing : "");
    bool failed = false;
    for (; !events_.empty() && !failed && out.size() < kWriteBytes; events_.pop_front()) {
      if (const auto* const error = std::get_if<StreamError>(&events_.front())) {
        failed = true;
        OpenAiAnswer::stream_error(to_api_error(error->error, reply_.request_name()), out);
      } else {
        tell(answer, events_.front(), &out);
      }
    }
    if (out.empty()) continue;  // tokens behind a stop string, or scores
    const bool last = failed || answer.done();
    if (!co_await write_stream_text(std::move(out), last)) co_return false;
    if (last) co_return keep_alive_ && !failed && !shutting_down_;
  }
  co_return false;
}

asio::awaitable<bool> HttpSession::write_stream_head() {
  if (reply_.http_version() == 10) keep_alive_ = false;  // no chunks: the answer ends with the connection
  shared_.metrics().observe_response(200);
  stream_.expires_after(shared_.config().write_timeout);
  const error_code error = co_await write_event_stream_head(stream_, reply_, keep_alive_ && !shutting_down_);
  if (error) leave("the client takes nothing");
  co_return !error;
}

asio::awaitable<bool> HttpSession::write_stream_text(std::string text, bool last) {
  stream_.expires_after(shared_.config().write_timeout);
  writing_ = true;
  const error_code error = co_await write_event_stream(stream_, reply_.http_version(), std::move(text), last);
  writing_ = false;
  if (error) leave("the client takes nothing");
  co_return !error;
}

void HttpSession::on(const StreamEvent& event) {
  if (const auto* const token = std::get_if<StreamToken>(&event)) {
    if (token->index == 0) shared_.metrics().observe_first_token(token->since_arrival);
    // Behind a write that does not end. Without one, the tokens are about to be taken.
    if (writing_ && events_.size() >= shared_.config().stream_tokens_behind_max) {
      leave("the client reads too slowly");
      return;
    }
  }
  if (const auto* const end = std::get_if<StreamEnd>(&event)) {
    choices_[choice_of(event)].open = false;
    shared_.metrics().observe_end(end->waterfall);
    spdlog::debug("request_done request={} prompt_tokens={} output_tokens={} ttft_ms={:.1f} total_ms={:.1f}",
                  reply_.request_name(), end->waterfall.prompt_tokens, end->waterfall.output_tokens,
                  milliseconds(end->waterfall.ttft), milliseconds(end->waterfall.total));
  }
  if (const auto* const failed = std::get_if<StreamError>(&event)) {
    choices_[choice_of(event)].open = false;
    cancel_all();  // an answer without one of its choices is none
    // A full queue is told by its metric: a line for each would flood the log just when there is no time for it.
    const auto level = failed->error.code == ErrorCode::kQueueFull ? spdlog::level::debug : spdlog::level::warn;
    spdlog::log(level, "request_failed request={} code={} detail={}", reply_.request_name(),
                error_name(failed->error.code), failed->error.detail);
  }
  events_.push_back(event);
  wake_.cancel();
}

void HttpSession::shut_down() {
  shutting_down_ = true;
  if (submitted()) {
    cancel_all();
    on(StreamError{id_, {ErrorCode::kUnavailable, "the server is shutting down"}});
  } else if (!in_flight_) {
    leave("the server is shutting down");
  }
}

void HttpSession::leave(std::string_view why) {
  if (gone_) return;
  gone_ = true;
  if (submitted()) {
    cancel_all();
    spdlog::info("request_cancelled request={} why=\"{}\"", reply_.request_name(), why);
  }
  stream_.close();
  wake_.cancel();
}

asio::awaitable<bool> HttpSession::wait_event(TimePoint until) {
  wake_.expires_at(until);
  error_code woken = asio::error::operation_aborted;
  while (events_.empty() && !gone_ && woken) woken = std::get<0>(co_await wake_.async_wait(kNoThrow));
  wake_.expires_at(kNever);
  co_return !gone_;
}

// Through the socket itself, not Beast's stream: this read has no time limit, while writes beside it have one.
asio::awaitable<void> HttpSession::watch_client() {
  while (in_flight_ && !gone_) {
    if (buffer_.size() > shared_.config().header_bytes_max) {
      leave("the client sent too much beside its request");
      break;
    }
    error_code error;
    size_t bytes = 0;
    std::tie(error, bytes) = co_await stream_.socket().async_read_some(buffer_.prepare(kReadBytes), kNoThrow);
    if (!error) buffer_.commit(bytes);
    if (error && in_flight_) leave("the client left");
    if (error) break;
  }
  watching_ = false;
  wake_.cancel();
}

asio::awaitable<void> HttpSession::end_watch() {
  in_flight_ = false;
  events_.clear();
  error_code ignored;
  if (watching_ && stream_.socket().is_open()) stream_.socket().cancel(ignored);
  while (watching_) co_await wake_.async_wait(kNoThrow);
}

}  // namespace spillway
