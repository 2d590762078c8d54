#include "gateway/http_server.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <deque>
#include <list>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <utility>

#include "common/check.h"
#include "common/log.h"
#include "common/thread.h"
#include "gateway/exposure.h"
#include "gateway/http_session.h"
#include "gateway/http_tls.h"
#include "gateway/parse_turns.h"
#include "gateway/queue_pace.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto kNoThrow = asio::as_tuple(asio::use_awaitable);
constexpr uint32_t kParseThreads = 2;
constexpr size_t kHealthOnlyConnections = 32;  // beyond connections_max
constexpr rlim_t kOtherFiles = 256;            // of this process: nodes, log, model
constexpr int kListenBacklog = 1024;
constexpr auto kSweep = std::chrono::milliseconds(20);  // precision of the sessions' time limits
constexpr auto kRetry = std::chrono::milliseconds(10);  // of an accept or a word to the loop that found no room

// Each connection is an open file; the usual soft limit is 1024.
void allow_files(const HttpConfig& config) {
  const rlim_t wanted = open_files_wanted(config);
  rlimit limit{};
  CHECK(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_cur >= wanted) return;
  if (limit.rlim_max < wanted)
    throw SetupError(
        fmt::format("{} connections need {} open files and this process may have {}: lower --queue-max or "
                    "raise the limit (ulimit -n)",
                    config.connections_max, wanted, limit.rlim_max));
  limit.rlim_cur = wanted;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    throw SetupError(fmt::format("cannot raise the limit of open files to {}: {}", wanted, std::strerror(errno)));
}

// Half of it at most for one of several tenants.
ByteBudget shared_budget(const HttpConfig& config, size_t total_max) {
  return {total_max, config.keys.count() > 1 ? total_max / 2 : total_max};
}

tcp::acceptor listen_at(asio::io_context& io, const HttpConfig& config) {
  const auto cannot = [&](const error_code& error) {
    return SetupError(fmt::format("cannot listen on {}:{}: {}. Choose another --port or --host", config.host,
                                  config.port, error.message()));
  };
  if (config.host.empty()) throw SetupError(std::string(kEmptyHost));
  error_code error;
  const auto found = tcp::resolver(io).resolve(config.host, std::to_string(config.port), tcp::resolver::passive, error);
  if (error || found.empty()) throw cannot(error);
  const tcp::endpoint endpoint = found.begin()->endpoint();
  tcp::acceptor acceptor(io);
  if (acceptor.open(endpoint.protocol(), error); error) throw cannot(error);
  acceptor.set_option(asio::socket_base::reuse_address(true));
  if (acceptor.bind(endpoint, error); error) throw cannot(error);
  const auto bound = acceptor.local_endpoint().address();  // what counts, whatever the host's name meant before
  const std::string fault =
      bound.is_loopback() ? std::string() : exposure_fault(config.host, config.keys.asked_for(), config.tls.given());
  if (!fault.empty() && !config.insecure) throw SetupError(fault);
  if (acceptor.listen(kListenBacklog, error); error) throw cannot(error);
  if (!fault.empty())
    spdlog::warn("open_to_the_network address={} keys={} tls={} as --insecure allows", bound.to_string(),
                 config.keys.asked_for(), config.tls.given());
  return acceptor;
}

}  // namespace

uint64_t open_files_wanted(const HttpConfig& config) {
  return config.connections_max + kHealthOnlyConnections + kOtherFiles;
}

class HttpServer::Service final : public HttpShared {
 public:
  Service(const HttpConfig& config, const ServedModel& model, Mailbox<GatewayInput>& inputs, BootId boot)
      : config_(config),
        model_(model),
        inputs_(inputs),
        boot_(boot),
        metrics_(model.name()),
        pool_(kParseThreads),
        acceptor_(listen_at(io_, config)),
        port_(acceptor_.local_endpoint().port()),
        timer_(io_) {
    CHECK(inputs.capacity() >= 2 * size_t{config.connections_max});
    if (config.tls.given()) tls_.emplace(make_tls_context(config.tls));
    allow_files(config);
    asio::co_spawn(io_, accept_all(), [](std::exception_ptr failed) {
      if (failed) std::rethrow_exception(failed);  // ends the process by name: nobody could connect any more
    });
    thread_.emplace("http", [this] {
      io_.run();
      gone_.store(true, std::memory_order_release);
      inputs_.wake();
    });
  }
  ~Service() {
    stop("the server is shutting down", std::chrono::seconds(2));
    thread_.reset();
  }

  uint16_t port() const { return port_; }

  void deliver(const StreamEvent& event) {
    asio::post(io_, [this, event] {
      const RequestId request = std::visit([](const auto& one) { return one.request; }, event);
      const auto found = streams_.find(request);
      if (found == streams_.end()) return;  // cancelled
      HttpSession& session = *found->second;
      const bool last = std::holds_alternative<StreamEnd>(event) || std::holds_alternative<StreamError>(event);
      if (last) streams_.erase(found);
      session.on(event);
    });
  }

  void publish(GatewayStatus status) {
    const std::lock_guard lock(status_mutex_);
    status_ = std::move(status);
    published_ = steady_now();
    pace_.observe(*published_, status_.counters.finished, status_.counters.queued);
  }

  void drain() {
    asio::post(io_, [this] { draining_ = true; });
  }

  void stop(std::string why, Duration grace) {
    asio::post(io_, [this, why = std::move(why), grace] {
      if (stopping_) return;
      stopping_ = true;
      error_code ignored;
      acceptor_.close(ignored);
      for (const auto& session : sessions_) session->shut_down(why);
      words_unsent_.clear();  // the loop ends too
      last_words_until_ = steady_now() + grace;
      asio::co_spawn(io_, end_stragglers(), [](std::exception_ptr) {});
    });
  }

  void hurry() {
    asio::post(io_, [this] { last_words_until_ = TimePoint::min(); });
  }
  bool gone() const { return gone_.load(std::memory_order_acquire); }

  // HttpShared: http thread.
  const HttpConfig& config() const override { return config_; }
  const ServedModel& model() const override { return model_; }
  GatewayMetrics& metrics() override { return metrics_; }
  asio::thread_pool& parse_pool() override { return pool_; }
  GatewayStatus status() const override {
    const std::lock_guard lock(status_mutex_);
    return status_;
  }
  GatewayHealth health() const override {
    const std::lock_guard lock(status_mutex_);
    GatewayHealth health = status_.health;
    const Duration silence = published_ ? steady_now() - *published_ : Duration{};
    if (silence > config_.loop_silence_max) {
      const std::string says = fmt::format("the gateway's loop is silent for {:.0f} s", seconds(silence));
      health.reasons.insert(health.reasons.begin(), says);
    }
    return health;
  }
  bool draining() const override { return draining_; }
  uint32_t max_model_len() const override {
    const std::lock_guard lock(status_mutex_);
    const uint32_t nodes = status_.max_model_len;
    return nodes == 0 ? model_.max_model_len() : std::min(nodes, model_.max_model_len());
  }
  uint32_t connections() const override { return static_cast<uint32_t>(sessions_.size()); }
  int64_t started() const override { return started_; }
  asio::ssl::context* tls() override { return tls_ ? &*tls_ : nullptr; }
  unsigned queue_drains_in_s() const override {
    const std::lock_guard lock(status_mutex_);
    return pace_.drains_in_s();
  }
  ByteBudget& bodies() override { return bodies_; }
  ByteBudget& answers() override { return answers_; }
  void ask_turn(const QueuedRequest& asked, HttpSession& session) override {
    turns_.ask(asked);
    in_turns_.emplace(asked.request, &session);
    begin_turns();
  }
  void end_turn(RequestId request) override {
    turns_.end(request);
    in_turns_.erase(request);
    begin_turns();
  }
  RequestId next_request() override { return {boot_, ++requests_}; }

  bool submit(GenerateRequest work, HttpSession& session) override {
    send_words();
    if (!words_unsent_.empty()) return false;
    const RequestId request = work.request;
    streams_.emplace(request, &session);
    if (inputs_.try_push(RequestArrived{std::move(work)})) return true;
    streams_.erase(request);
    return false;
  }

  void cancel(RequestId request) override {
    streams_.erase(request);
    words_unsent_.emplace_back(ClientGone{request});
    send_words();
  }

  void stop_found(RequestId request) override {
    words_unsent_.emplace_back(StopFound{request});
    send_words();
  }

 private:
  using Sessions = std::list<std::unique_ptr<HttpSession>>;

  void begin_turns() {
    while (const std::optional<RequestId> next = turns_.begin_next()) in_turns_.at(*next)->begin_turn();
  }

  asio::awaitable<void> accept_all() {
    while (!stopping_) {
      if (sessions_.size() >= config_.connections_max + kHealthOnlyConnections && !make_room()) {
        co_await pause(kRetry);  // the rest waits in the kernel's backlog
        continue;
      }
      error_code error;
      tcp::socket socket(io_);
      error = std::get<0>(co_await acceptor_.async_accept(socket, kNoThrow));
      if (stopping_) break;
      if (error) {
        spdlog::warn("accept_failed what=\"{}\"", error.message());
        co_await pause(kRetry);
        continue;
      }
      socket.set_option(tcp::no_delay(true), error);
      socket.set_option(asio::socket_base::send_buffer_size(config_.socket_send_bytes), error);
      start_session(std::move(socket));
    }
  }

  // A client that says nothing, or that does not come to the end of its request, keeps its place only as long as nobody
  // else wants it.
  bool make_room() { return end_longest(&HttpSession::idle_since) || end_longest(&HttpSession::unfinished_since); }
  bool end_longest(std::optional<TimePoint> (HttpSession::*since)() const) {
    HttpSession* longest = nullptr;
    TimePoint earliest = steady_now() - config_.idle_kept_min;
    for (const auto& session : sessions_) {
      const std::optional<TimePoint> begin = (*session.*since)();
      if (!begin || *begin > earliest) continue;
      longest = session.get();
      earliest = *begin;
    }
    if (longest != nullptr) longest->leave("another client needs its place");
    return longest != nullptr;
  }

  // The time limits of all connections: one timer for them all.
  asio::awaitable<void> sweep() {
    while (!sessions_.empty()) {
      co_await pause(kSweep);
      for (const auto& session : sessions_) session->end_overdue();
    }
    sweeping_ = false;
  }

  void start_session(tcp::socket socket) {
    const bool room = sessions_.size() < config_.connections_max || make_room();
    const auto admission = room ? HttpSession::Admission::kFull : HttpSession::Admission::kHealthOnly;
    const auto session =
        sessions_.insert(sessions_.end(), std::make_unique<HttpSession>(*this, std::move(socket), admission));
    asio::co_spawn(io_, (*session)->run(), [this, session](std::exception_ptr) { sessions_.erase(session); });
    if (!std::exchange(sweeping_, true)) asio::co_spawn(io_, sweep(), [](std::exception_ptr) {});
  }

  asio::awaitable<void> pause(std::chrono::milliseconds time) {
    asio::steady_timer timer(io_, time);
    co_await timer.async_wait(kNoThrow);
  }

  // Clients that do not take their last words, or still send.
  asio::awaitable<void> end_stragglers() {
    while (steady_now() < last_words_until_ && !sessions_.empty()) co_await pause(kRetry);
    for (const auto& session : sessions_) session->leave("the server stopped");
    words_unsent_.clear();
  }

  // Offers what waits to the loop; again later if it has no room.
  void send_words() {
    while (!words_unsent_.empty() && inputs_.try_push(GatewayInput(words_unsent_.front()))) words_unsent_.pop_front();
    if (words_unsent_.empty() || retrying_ || stopping_) return;
    retrying_ = true;
    timer_.expires_after(kRetry);
    timer_.async_wait([this](const error_code&) {
      retrying_ = false;
      send_words();
    });
  }

  const HttpConfig config_;
  const ServedModel& model_;
  Mailbox<GatewayInput>& inputs_;
  const BootId boot_;
  const int64_t started_ = static_cast<int64_t>(std::time(nullptr));

  std::atomic<bool> gone_ = false;
  mutable std::mutex status_mutex_;
  GatewayStatus status_;                // guarded by status_mutex_
  std::optional<TimePoint> published_;  // guarded by status_mutex_
  QueuePace pace_;                      // guarded by status_mutex_

  asio::io_context io_{1};
  // From here to the thread: http thread only.
  GatewayMetrics metrics_;
  ByteBudget bodies_ = shared_budget(config_, config_.body_bytes_total_max);
  ByteBudget answers_ = shared_budget(config_, config_.answer_bytes_total_max);
  ParseTurns turns_{kParseThreads};
  std::unordered_map<RequestId, HttpSession*> in_turns_;  // that wait or have begun: one a session
  std::optional<asio::ssl::context> tls_;
  asio::thread_pool pool_;
  tcp::acceptor acceptor_;
  const uint16_t port_;
  asio::steady_timer timer_;
  Sessions sessions_;                                    // at most connections_max + kHealthOnlyConnections
  std::unordered_map<RequestId, HttpSession*> streams_;  // at most kAnswerChoicesMax a session
  std::deque<GatewayInput> words_unsent_;                // at most two a request: nothing is submitted meanwhile
  uint64_t requests_ = 0;
  TimePoint last_words_until_{};  // once stopping
  bool stopping_ = false, retrying_ = false, sweeping_ = false, draining_ = false;
  std::optional<Thread> thread_;
};

HttpServer::HttpServer(const HttpConfig& config, const ServedModel& model, Mailbox<GatewayInput>& inputs, BootId boot)
    : service_(std::make_unique<Service>(config, model, inputs, boot)) {}
HttpServer::~HttpServer() = default;
uint16_t HttpServer::port() const { return service_->port(); }
void HttpServer::deliver(const StreamEvent& event) { service_->deliver(event); }
void HttpServer::publish(GatewayStatus status) { service_->publish(std::move(status)); }
void HttpServer::drain() { service_->drain(); }
void HttpServer::stop(std::string why, Duration grace) { service_->stop(std::move(why), grace); }
void HttpServer::hurry() { service_->hurry(); }
bool HttpServer::gone() const { return service_->gone(); }

}  // namespace spillway
