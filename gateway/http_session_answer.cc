// What a session does with the answer to its request.
#include <fmt/format.h>

#include <boost/asio/awaitable.hpp>
#include <ctime>
#include <utility>

#include "common/check.h"
#include "gateway/http_event_stream.h"
#include "gateway/http_session.h"
#include "gateway/sse.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

int64_t unix_seconds() { return static_cast<int64_t>(std::time(nullptr)); }

}  // namespace

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
  OpenAiAnswer answer(answer_head(request), shared_.model().tokenizer(), request.work.digest_logits,
                      std::move(request.stop));
  answer_ = &answer;
  streams_ = request.stream;
  tokens_behind_ = 0;
  waterfall_ = {};
  waterfall_.prompt_tokens = checked_cast<uint32_t>(request.work.prompt.size());
  request.work.request = id_;
  request.work.tenant = *tenant_;
  request.work.trace = log_.trace();
  if (!shared_.submit(std::move(request.work), *this))
    co_return co_await reply(reply_.error(busy("the gateway is overloaded: try again")));
  submitted_ = true;
  stop_told_ = false;
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
  if (request.running_usage) head.usage_of_prompt = static_cast<uint32_t>(request.work.prompt.size());
  return head;
}

// The nodes go on until they are told: at once, or they compute tokens for nobody.
void HttpSession::stop_early(const OpenAiAnswer& answer) {
  if (!answer.stopped() || !submitted_ || std::exchange(stop_told_, true)) return;
  shared_.stop_found(id_);
}

asio::awaitable<bool> HttpSession::answer_whole(OpenAiAnswer& answer) {
  if (!co_await wait_event()) co_return false;
  if (const auto* const failed = std::get_if<StreamError>(&*ended_))
    co_return co_await reply(reply_.error(api_error_of(*failed)));
  co_return co_await reply(reply_.json(answer.body(std::get<StreamEnd>(*ended_))));
}

asio::awaitable<bool> HttpSession::answer_stream(OpenAiAnswer& answer) {
  // The header waits for the first event, so that a request refused in the queue gets its own status: but no longer
  // than until the first ping.
  const Duration silence = shared_.config().stream_silence_max;
  if (!co_await wait_event(steady_now() + silence)) co_return false;
  if (unsent_.empty() && ended_ && std::holds_alternative<StreamError>(*ended_))
    co_return co_await reply(reply_.error(api_error_of(std::get<StreamError>(*ended_))));
  if (!co_await write_stream_head()) co_return false;
  for (TimePoint ping_at = steady_now(); co_await wait_event(ping_at); ping_at = steady_now() + silence) {
    std::string out = std::exchange(unsent_, {});
    tokens_behind_ = 0;
    const bool last = ended_.has_value();
    const auto* const failed = last ? std::get_if<StreamError>(&*ended_) : nullptr;
    if (failed) OpenAiAnswer::stream_error(api_error_of(*failed), out);
    if (last && !failed) answer.stream_end(std::get<StreamEnd>(*ended_), out);
    if (out.empty()) out = kSsePing;
    if (!co_await write_stream_text(std::move(out), last)) co_return false;
    if (last) co_return keep_alive_ && !failed && !shutting_down_;
  }
  co_return false;
}

asio::awaitable<bool> HttpSession::write_stream_head() {
  if (reply_.http_version() == 10) keep_alive_ = false;  // no chunks: the answer ends with the connection
  shared_.metrics().observe_response(200);
  co_return co_await written(write_event_stream_head(stream_, reply_, keep_alive_ && !shutting_down_));
}

asio::awaitable<bool> HttpSession::write_stream_text(std::string text, bool last) {
  co_return co_await written(write_event_stream(stream_, reply_.http_version(), std::move(text), last));
}

asio::awaitable<bool> HttpSession::written(asio::awaitable<error_code> write) {
  stream_.limit(shared_.config().write_timeout);
  writing_ = true;
  const error_code error = co_await std::move(write);
  writing_ = false;
  stream_.no_limit();
  if (error) leave("the client takes nothing");
  co_return !error;
}

void HttpSession::on(const StreamEvent& event) {
  std::visit([&](const auto& one) { take(one); }, event);
  wake_.cancel();
}

// A token becomes text as it comes, also behind a write that does not end: a stop string in it must stop the nodes.
void HttpSession::take(const StreamToken& token) {
  if (token.index == 0) {
    shared_.metrics().observe_first_token(token.since_arrival);
    waterfall_.ttft = token.since_arrival;
  } else {
    shared_.metrics().observe_token_gap(token.since_arrival - last_token_);
  }
  last_token_ = token.since_arrival;
  if (answer_->stopped()) return;
  waterfall_.total = token.since_arrival;
  if (streams_) {
    // Without a write under way, the tokens are about to be taken.
    if (writing_ && tokens_behind_ >= shared_.config().stream_tokens_behind_max)
      return leave("the client reads too slowly");
    ++tokens_behind_;
    answer_->stream_token(token, unsent_);
  } else {
    answer_->add_token(token);
  }
  stop_early(*answer_);
}

void HttpSession::take(const StreamEnd& end) {
  submitted_ = false;
  ended_ = end;
  shared_.metrics().observe_end(end.waterfall);
  log_.done(end);
}

void HttpSession::take(const StreamError& failed) {
  submitted_ = false;
  ended_ = failed;
  log_.failed(failed.error);
  // Behind a stop string the answer is whole, whatever became of its nodes.
  if (answer_->stopped()) ended_ = StreamEnd{id_, FinishReason::kStop, waterfall_};
}

ApiError HttpSession::api_error_of(const StreamError& failed) const {
  ApiError error = to_api_error(failed.error, reply_.request_name());
  if (failed.error.code == ErrorCode::kQueueFull) error.retry_after_s = shared_.queue_drains_in_s();
  return error;
}

}  // namespace spillway
