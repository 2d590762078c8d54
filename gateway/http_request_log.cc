#include "gateway/http_request_log.h"

#include "common/clock.h"

namespace spillway {
namespace {

constexpr size_t kPathShownMax = 128;

}  // namespace

HttpRequestLog::HttpRequestLog(RequestId id, const HttpRequest& request)
    : id_(id_text(id)), client_id_(client_request_name(request)) {
  if (request.count("traceparent") == 1) trace_ = parse_traceparent(request["traceparent"]);
  if (!trace_) return;
  trace_id_ = trace_->trace_text();
  parent_id_ = trace_->parent_text();
}

std::string HttpRequestLog::answer_of(RequestId request) const { return id_text(request) == id_ ? std::string() : id_; }

void HttpRequestLog::done(const StreamEnd& end) const {
  const Waterfall& waterfall = end.waterfall;
  log_event(spdlog::level::info, "request_done",
            {{"request", id_text(end.request)},
             {"answer", answer_of(end.request)},
             {"x_request_id", client_id_},
             {"trace_id", trace_id_},
             {"parent_id", parent_id_},
             {"prompt_tokens", waterfall.prompt_tokens},
             {"cached_tokens", waterfall.prefill_cached_tokens},
             {"output_tokens", waterfall.output_tokens},
             {"queue_ms", milliseconds(waterfall.queue)},
             {"ttft_ms", milliseconds(waterfall.ttft)},
             {"total_ms", milliseconds(waterfall.total)}});
}

void HttpRequestLog::failed(RequestId request, const Error& error) const {
  // A full queue is told by its metric: a line for each would flood the log just when there is no time for it.
  log_event(error.code == ErrorCode::kQueueFull ? spdlog::level::debug : spdlog::level::warn, "request_failed",
            {{"request", id_text(request)},
             {"answer", answer_of(request)},
             {"x_request_id", client_id_},
             {"trace_id", trace_id_},
             {"parent_id", parent_id_},
             {"code", error_name(error.code)},
             {"detail", error.detail}});
}

void HttpRequestLog::cancelled(std::string_view why) const {
  log_event(spdlog::level::info, "request_cancelled",
            {{"request", id_},
             {"x_request_id", client_id_},
             {"trace_id", trace_id_},
             {"parent_id", parent_id_},
             {"why", why}});
}

void HttpRequestLog::fault(std::string_view what) const {
  log_event(spdlog::level::err, "request_fault",
            {{"request", id_},
             {"x_request_id", client_id_},
             {"trace_id", trace_id_},
             {"parent_id", parent_id_},
             {"what", what}});
}

void HttpRequestLog::refused(unsigned status, const HttpRequest& request) const {
  log_event(spdlog::level::debug, "request_refused",
            {{"request", id_},
             {"x_request_id", client_id_},
             {"trace_id", trace_id_},
             {"parent_id", parent_id_},
             {"status", status},
             {"method", request.method_string()},
             {"path", path_of(request.target()).substr(0, kPathShownMax)}});
}

}  // namespace spillway
