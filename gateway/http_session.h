#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api_call.h"
#include "gateway/http_reply.h"
#include "gateway/http_request_log.h"
#include "gateway/http_shared.h"
#include "gateway/http_stream.h"
#include "gateway/openai_answer.h"

namespace spillway {

// One connection: requests one after the other. Http thread only; owned by the server, which keeps it until run() ends.
// While a request is under way a read stays pending, so that a client that leaves is noticed at once; what it sends
// meanwhile (pipelining) waits in the buffer, bounded by header_bytes_max: a client that sends more is shut out.
class HttpSession {
 public:
  // kHealthOnly: over connections_max; completions are answered 503.
  enum class Admission : uint8_t { kFull, kHealthOnly };
  HttpSession(HttpShared& shared, boost::asio::ip::tcp::socket socket, Admission admission);
  HttpSession(const HttpSession&) = delete;
  HttpSession& operator=(const HttpSession&) = delete;
  ~HttpSession() { release_body(); }

  boost::asio::awaitable<void> run();      // the connection's whole life
  void on(const StreamEvent& event);       // of the request under way
  void begin_turn();                       // asked for of the server
  void shut_down(const std::string& why);  // idle: closes; a request under way ends in an error
  void leave(std::string_view why);        // closes at once; a request under way is cancelled
  // REQUIRES: called every few milliseconds: time limits hold only so.
  void end_overdue();
  // Since when nothing of a request has come. Nothing: something has.
  std::optional<TimePoint> idle_since() const { return idle() ? idle_since_ : std::nullopt; }
  // Since when a request comes that is not whole, or one is refused. Nothing: none, or it is whole and is answered.
  std::optional<TimePoint> unfinished_since() const { return unfinished_since_; }

 private:
  using Parser = boost::beast::http::request_parser<ArrivingBody>;

  bool idle() const { return idle_since_ && buffer_.size() == 0 && (!parser_ || !parser_->got_some()); }
  void note_first_byte();
  Duration header_timeout() const;
  boost::asio::awaitable<void> end_by_fault();
  boost::asio::awaitable<bool> open();  // TLS; false: no client for it
  // True: the connection can take another request.
  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<bool> serve_call(std::string path);
  boost::asio::awaitable<bool> answer_call(ApiCall call);
  boost::asio::awaitable<bool> answer(ApiRequest request);
  bool submit(const ApiRequest& request);  // false: no room
  bool submitted() const;                  // the loop knows some choice
  void cancel_all();
  void fail_all(const Error& error);
  size_t choice_of(RequestId request) const;
  void stop_early(size_t choice);
  boost::asio::awaitable<bool> answer_whole(OpenAiAnswer& answer);
  boost::asio::awaitable<bool> answer_stream(OpenAiAnswer& answer);
  boost::asio::awaitable<bool> reply(HttpResponse response);
  boost::asio::awaitable<bool> refuse_unread(HttpResponse response);
  std::optional<HttpResponse> refuse(const HttpRequest& request);  // from its header alone; chooses the tenant

  // Counts the body against the server's bound as it arrives, so that a client that sends nothing holds nothing of it.
  // kNoBodyRoom: the bound is reached.
  boost::asio::awaitable<boost::system::error_code> read_body();
  void release_body();
  bool hold_answer(size_t bytes);  // of it in memory now; false: no room for so many more
  bool hold_stream();              // what is not written yet is, and scores for echoes
  AnswerHead answer_head(const ApiRequest& request) const;

  void give_up(std::string_view why);  // leave(), of a client that does not take what it is sent
  // While a Turn lasts the parse pool works for this session: as soon as its tenant's turn comes. They give nothing
  // where the client is gone or the turn did not come in time.
  class Turn;
  boost::asio::awaitable<bool> turn_begins();
  static ApiError turn_did_not_come();
  boost::asio::awaitable<std::optional<Parsed<ApiCall>>> parse_in_turn(std::string path, std::string body);
  boost::asio::awaitable<std::optional<std::string>> body_in_turn(OpenAiAnswer& answer);
  boost::asio::awaitable<void> watch_client();
  boost::asio::awaitable<void> end_watch();
  // False: the client is gone. Without an event: it is `until`.
  boost::asio::awaitable<bool> wait_event(TimePoint until = kNever);
  boost::asio::awaitable<bool> write_echoes(OpenAiAnswer& answer);
  boost::asio::awaitable<bool> write_stream_head();
  boost::asio::awaitable<bool> write_stream_text(std::string text, bool last);
  boost::asio::awaitable<bool> written(boost::asio::awaitable<boost::system::error_code> write);
  void take(const StreamToken& token);
  void take(const StreamScores& scores);
  void take(const StreamEnd& end);
  void take(const StreamError& failed);
  ApiError api_error_of(const StreamError& failed) const;

  HttpShared& shared_;
  HttpStream stream_;
  const Admission admission_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  boost::asio::steady_timer wake_;       // cancelled to end a wait; expires in wait_event() only
  std::optional<TimePoint> idle_since_;  // while the beginning of a request may come
  std::optional<TimePoint> unfinished_since_;
  bool turn_begun_ = false;
  bool shutting_down_ = false;
  bool limited_ = false;  // the time for the next request runs already

  // Of the request being answered.
  RequestId id_;
  HttpReply reply_;
  HttpRequestLog log_;
  const TenantKey* tenant_ = nullptr;
  size_t body_bytes_ = 0;  // taken from the server's bound
  bool keep_alive_ = false;
  bool answered_ = true;  // something of its answer was written, or there is no request
  bool in_flight_ = false, watching_ = false, writing_ = false, gone_ = false;
  struct Choice {
    RequestId id;
    bool open = true;        // the loop knows it and has not ended it
    bool stop_told = false;  // and was told that it may
    Waterfall waterfall;     // as far as its tokens tell
    Duration last_token{};   // since its arrival
  };
  std::vector<Choice> choices_;
  OpenAiAnswer* answer_ = nullptr;  // what its tokens become: from its submission on
  bool streams_ = false;            // as events; otherwise in one piece
  std::string unsent_;              // events of a stream that wait for the write before them, of tokens_behind_ tokens
  size_t writing_bytes_ = 0;        // of a stream, in that write
  size_t held_bytes_ = 0;           // taken from the server's bound of answers
  uint32_t tokens_behind_ = 0;      // at most stream_tokens_behind_max behind a write
  std::optional<StreamError> failed_;  // one of its choices
};

}  // namespace spillway
