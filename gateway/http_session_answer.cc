// What a session does with the answer to its request.
#include <fmt/format.h>

#include <algorithm>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <ctime>
#include <utility>

#include "common/check.h"
#include "gateway/api_choices.h"
#include "gateway/http_event_stream.h"
#include "gateway/http_session.h"
#include "gateway/sse.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

// Of one answer these are not counted, so that what others do not read costs no client its small answer.
constexpr size_t kUncountedBytes = 64 << 10;

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
  if (shared_.draining()) co_return co_await reply(reply_.error(draining()));
  if (shutting_down_) co_return co_await reply(reply_.error(busy("the server is shutting down")));
  OpenAiAnswer answer(answer_head(request), shared_.model().tokenizer(), answer_shape(request));
  answer_ = &answer;
  streams_ = request.stream;
  tokens_behind_ = 0;
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
  if (request.running_usage) {
    size_t tokens = request.work.prompt.size();
    for (const PromptOfList& one : request.more_prompts) tokens += one.prompt.size();
    head.usage_of_prompt = checked_cast<uint32_t>(tokens);
  }
  return head;
}

asio::awaitable<bool> HttpSession::answer_whole(OpenAiAnswer& answer) {
  if (!co_await wait_event()) co_return false;
  std::optional<std::string> body;
  if (!failed_ && answer.has_logprobs()) {  // half a million of them take long to write
    body = co_await body_in_turn(answer);
    if (gone_) co_return false;
  } else if (!failed_) {
    body = answer.body();
  }
  const bool held = !body || hold_answer(body->size());
  if (!held) body.reset();
  // One reply for both: with a `co_return co_await reply(...)` in each branch GCC 12 at -O3 makes a coroutine that
  // reads its frame before it is written, and crashes.
  HttpResponse response = failed_ ? reply_.error(api_error_of(*failed_))
                          : body  ? reply_.json(std::move(*body))
                          : held  ? reply_.error(turn_did_not_come())
                                  : reply_.error(busy("too many large answers wait to be read: try again"));
  co_return co_await reply(std::move(response));
}

asio::awaitable<bool> HttpSession::answer_stream(OpenAiAnswer& answer) {
  // The header waits for the first event, so that a request refused in the queue gets its own status: but no longer
  // than until the first ping.
  const Duration silence = shared_.config().stream_silence_max;
  if (!co_await wait_event(steady_now() + silence)) co_return false;
  if (unsent_.empty() && failed_) co_return co_await reply(reply_.error(api_error_of(*failed_)));
  if (!co_await write_stream_head()) co_return false;
  for (TimePoint ping_at = steady_now(); co_await wait_event(ping_at); ping_at = steady_now() + silence) {
    if (!co_await write_echoes(answer)) co_return false;
    std::string out = std::exchange(unsent_, {});
    tokens_behind_ = 0;
    const bool failed = failed_.has_value(), last = failed || answer.done();
    if (failed) OpenAiAnswer::stream_error(api_error_of(*failed_), out);
    if (out.empty()) out = kSsePing;
    writing_bytes_ = out.size();
    if (!co_await write_stream_text(std::move(out), last)) co_return false;
    writing_bytes_ = 0;
    hold_stream();
    if (last) co_return keep_alive_ && !failed && !shutting_down_ && !shared_.draining();
  }
  co_return false;
}

// A piece a write, so that other sessions have their turns between; its tokens wait meanwhile, bounded as ever.
asio::awaitable<bool> HttpSession::write_echoes(OpenAiAnswer& answer) {
  for (std::string piece; !failed_ && answer.stream_echo(piece); piece.clear()) {
    if (!co_await write_stream_text(std::move(piece), false)) co_return false;
    hold_stream();
  }
  co_return true;
}

asio::awaitable<bool> HttpSession::write_stream_head() {
  if (reply_.http_version() == 10) keep_alive_ = false;  // no chunks: the answer ends with the connection
  shared_.metrics().observe_response(200);
  answered_ = true;
  co_return co_await written(
      write_event_stream_head(stream_, reply_, keep_alive_ && !shutting_down_ && !shared_.draining()));
}

asio::awaitable<bool> HttpSession::write_stream_text(std::string text, bool last) {
  co_return co_await written(write_event_stream(stream_, reply_.http_version(), std::move(text), last));
}

asio::awaitable<bool> HttpSession::written(asio::awaitable<error_code> write) {
  stream_.limit_pace(shared_.config().write_timeout);
  writing_ = true;
  const error_code error = co_await std::move(write);
  writing_ = false;
  const bool overdue = stream_.overdue();
  stream_.no_limit();
  if (error) overdue ? give_up("the client takes nothing") : leave("the client left");
  co_return !error;
}

bool HttpSession::hold_answer(size_t bytes) {
  const size_t wanted = std::max(bytes, kUncountedBytes) - kUncountedBytes;
  if (wanted > held_bytes_) {
    if (!shared_.answers().take(tenant_id(*tenant_), wanted - held_bytes_)) return false;
  } else if (wanted < held_bytes_) {
    shared_.answers().give(tenant_id(*tenant_), held_bytes_ - wanted);
  }
  held_bytes_ = wanted;
  return true;
}

bool HttpSession::hold_stream() { return hold_answer(writing_bytes_ + unsent_.size() + answer_->echo_bytes()); }

void HttpSession::on(const StreamEvent& event) {
  std::visit([&](const auto& one) { take(one); }, event);
  wake_.cancel();
}

// A token becomes text as it comes, also behind a write that does not end: a stop string in it must stop the nodes.
void HttpSession::take(const StreamToken& token) {
  const size_t choice = choice_of(token.request);
  Waterfall& waterfall = choices_[choice].waterfall;
  if (token.index == 0) {
    shared_.metrics().observe_first_token(token.since_arrival);
    waterfall.ttft = token.since_arrival;
  } else {
    shared_.metrics().observe_token_gap(token.since_arrival - choices_[choice].last_token);
  }
  choices_[choice].last_token = token.since_arrival;
  if (answer_->stopped(choice)) return;
  waterfall.total = token.since_arrival;
  if (streams_) {
    // Without a write under way, the tokens are about to be taken.
    if (writing_ && (tokens_behind_ >= shared_.config().stream_tokens_behind_max * choices_.size() ||
                     unsent_.size() >= shared_.config().stream_bytes_behind_max))
      return give_up("the client reads too slowly");
    ++tokens_behind_;
    answer_->stream_token(choice, token, unsent_);
    if (!hold_stream()) return give_up("too many clients read slowly");
  } else {
    answer_->add_token(choice, token);
  }
  stop_early(choice);
}

void HttpSession::take(const StreamScores& scores) {
  answer_->add_scores(choice_of(scores.request), scores);
  if (!failed_ && !hold_stream())
    fail_all({ErrorCode::kUnavailable, "too many large answers wait to be read: try again"});
}

void HttpSession::take(const StreamEnd& end) {
  const size_t choice = choice_of(end.request);
  choices_[choice].open = false;
  if (streams_) {
    answer_->stream_end(choice, end, unsent_);
  } else {
    answer_->add_end(choice, end);
  }
  shared_.metrics().observe_end(end.waterfall);
  log_.done(end);
}

void HttpSession::take(const StreamError& failed) {
  const size_t choice = choice_of(failed.request);
  log_.failed(failed.request, failed.error);
  // Behind a stop string a choice is whole, whatever became of its nodes.
  if (answer_->stopped(choice)) return take(StreamEnd{failed.request, FinishReason::kStop, choices_[choice].waterfall});
  choices_[choice].open = false;
  failed_ = failed;
  cancel_all();  // an answer that lacks one of its choices is none
}

ApiError HttpSession::api_error_of(const StreamError& failed) const {
  ApiError error = to_api_error(failed.error, reply_.request_name());
  if (failed.error.code == ErrorCode::kQueueFull) error.retry_after_s = shared_.queue_drains_in_s();
  return error;
}

}  // namespace spillway
