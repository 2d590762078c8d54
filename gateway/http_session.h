#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gateway/api_call.h"
#include "gateway/http_reply.h"
#include "gateway/http_shared.h"
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

  boost::asio::awaitable<void> run();  // the connection's whole life
  void on(const StreamEvent& event);   // of the request under way
  void shut_down();                    // idle: closes; a request under way ends in an error
  void leave(std::string_view why);    // closes at once; a request under way is cancelled

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  // True: the connection can take another request.
  boost::asio::awaitable<bool> serve_one();
  boost::asio::awaitable<bool> serve_call(std::string path);
  boost::asio::awaitable<bool> answer_call(ApiCall call);
  boost::asio::awaitable<bool> answer(ApiRequest request);
  bool submit(const ApiRequest& request);  // false: no room
  bool submitted() const;                  // the loop knows some choice
  void cancel_all();
  size_t choice_of(const StreamEvent& event) const;
  void tell(OpenAiAnswer& answer, const StreamEvent& event, std::string* out);
  void stop_early(const OpenAiAnswer& answer, size_t choice);
  boost::asio::awaitable<bool> answer_whole(OpenAiAnswer& answer);
  boost::asio::awaitable<bool> answer_stream(OpenAiAnswer& answer);
  boost::asio::awaitable<bool> reply(HttpResponse response);
  boost::asio::awaitable<bool> refuse_unread(HttpResponse response);
  std::optional<HttpResponse> refuse(const HttpRequest& request);  // from its header alone; chooses the tenant

  // Counts the body against the server's bound as it arrives, so that a client that sends nothing holds nothing of it.
  // kNoBodyRoom: the bound is reached.
  boost::asio::awaitable<boost::system::error_code> read_body();
  void release_body();
  AnswerHead answer_head(const ApiRequest& request) const;

  boost::asio::awaitable<void> watch_client();
  boost::asio::awaitable<void> end_watch();
  // False: the client is gone. Without an event: it is `until`.
  boost::asio::awaitable<bool> wait_event(TimePoint until = kNever);
  boost::asio::awaitable<bool> write_stream_head();
  boost::asio::awaitable<bool> write_stream_text(std::string text, bool last);

  HttpShared& shared_;
  boost::beast::tcp_stream stream_;
  const Admission admission_;
  boost::beast::flat_buffer buffer_;
  std::optional<Parser> parser_;
  boost::asio::steady_timer wake_;  // cancelled to end a wait; expires in wait_event() only
  bool shutting_down_ = false;

  // Of the request being answered.
  RequestId id_;
  HttpReply reply_;
  const TenantKey* tenant_ = nullptr;
  size_t body_bytes_ = 0;  // taken from the server's bound
  bool keep_alive_ = false;
  bool in_flight_ = false, watching_ = false, writing_ = false, gone_ = false;
  struct Choice {
    RequestId id;
    bool open = true;        // the loop knows it and has not ended it
    bool stop_told = false;  // and was told that it may
  };
  std::vector<Choice> choices_;
  std::deque<StreamEvent> events_;  // at most stream_tokens_behind_max tokens behind a write, and one end
};

}  // namespace spillway
