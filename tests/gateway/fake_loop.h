#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/mailbox.h"
#include "common/thread.h"
#include "gateway/http_server.h"
#include "tests/gateway/byte_model.h"

namespace spillway {

// The gateway's loop thread as a test scripts it: `script` answers each request, on the loop's thread.
class FakeLoop {
 public:
  using Script = std::function<void(FakeLoop&, const GenerateRequest&)>;

  explicit FakeLoop(Script script, HttpConfig config = {}, uint32_t max_model_len = 1000)
      : model_(make_byte_model(tokenizer, max_model_len)),
        script_(std::move(script)),
        inputs(2 * size_t{config.connections_max}, waker_) {
    config.port = 0;
    server.emplace(config, model_, inputs, BootId{0xb007});
    GatewayStatus status;
    status.health = {};
    server->publish(status);
    thread_.emplace("fake loop", [this] { run(); });
  }
  ~FakeLoop() {
    stop_ = true;
    resume();
    waker_.wake();
    thread_.reset();
    server.reset();
  }

  uint16_t port() const { return server->port(); }

  // What a script says. `text`: a token per byte, from index 0.
  void tokens(const GenerateRequest& request, std::string_view text, uint32_t first_index = 0) {
    const Duration age = std::chrono::milliseconds(20);
    for (const char byte : text)
      server->deliver(StreamToken{request.request, first_index++, static_cast<unsigned char>(byte), 0xd16e57, age});
  }
  void end(const GenerateRequest& request, uint32_t output_tokens) {
    StreamEnd end{request.request, FinishReason::kStop, {}};
    end.waterfall.prompt_tokens = static_cast<uint32_t>(request.prompt.size());
    end.waterfall.output_tokens = output_tokens;
    end.waterfall.prefill_cached_tokens = 2;
    end.waterfall.ttft = std::chrono::milliseconds(20);
    end.waterfall.total = std::chrono::milliseconds(80);
    server->deliver(end);
  }
  void error(const GenerateRequest& request, ErrorCode code, std::string detail) {
    server->deliver(StreamError{request.request, {code, std::move(detail)}});
  }

  // False: not within 10 seconds.
  bool wait_arrivals(size_t count) { return wait_for(arrived_, count); }
  bool wait_gone(size_t count) { return wait_for(gone_, count); }
  bool wait_stops(size_t count) { return wait_for(stops_, count); }
  std::vector<GenerateRequest> arrived() { return copy(arrived_); }
  std::vector<RequestId> gone() { return copy(gone_); }
  std::vector<RequestId> stops() { return copy(stops_); }
  // Once this returns, the loop takes nothing out of its mailbox.
  void pause() {
    paused_ = true;
    waker_.wake();
    EXPECT_TRUE(wait([&] { return resting_; }));
  }
  void resume() {
    paused_ = false;
    waker_.wake();
  }

  ByteTokenizer tokenizer;

 private:
  ServedModel model_;
  Script script_;
  EventFdWaker waker_;

 public:
  Mailbox<GatewayInput> inputs;
  std::optional<HttpServer> server;

 private:
  void run() {
    while (!stop_) {
      waker_.wait(50);
      note([&] { resting_ = paused_; });
      while (!paused_) {
        const std::optional<GatewayInput> input = inputs.take();
        if (!input) break;
        if (const auto* const arrival = std::get_if<RequestArrived>(&*input)) {
          note([&] { arrived_.push_back(arrival->work); });
          script_(*this, arrival->work);
        } else if (const auto* const gone = std::get_if<ClientGone>(&*input)) {
          note([&] { gone_.push_back(gone->request); });
        } else {
          note([&] { stops_.push_back(std::get<StopFound>(*input).request); });
        }
      }
    }
  }
  template <class Change>
  void note(Change&& change) {
    const std::lock_guard lock(mutex_);
    change();
    changed_.notify_all();
  }
  template <class Condition>
  bool wait(Condition&& condition) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(10), condition);
  }

  template <class List>
  bool wait_for(const List& list, size_t count) {
    return wait([&] { return list.size() >= count; });
  }
  template <class List>
  List copy(const List& list) {
    const std::lock_guard lock(mutex_);
    return list;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<GenerateRequest> arrived_;  // guarded by mutex_
  std::vector<RequestId> gone_, stops_;   // guarded by mutex_
  bool resting_ = false;                  // guarded by mutex_
  std::atomic<bool> stop_ = false, paused_ = false;
  std::optional<Thread> thread_;
};

}  // namespace spillway
