#include "cli/node_request_log.h"

#include <utility>
#include <variant>

#include "common/log.h"

namespace spillway {
namespace {

double ms_of(uint32_t us) { return us / 1000.0; }

}  // namespace

NodeRequestLog::Trace NodeRequestLog::trace_of(RequestId request) const {
  const auto entry = traces_.find(request);
  return entry == traces_.end() ? Trace{} : entry->second;
}

void NodeRequestLog::received(const Message& message) {
  if (const auto* const prefill = std::get_if<Prefill>(&message)) begun(prefill->work);
  if (const auto* const reserve = std::get_if<Reserve>(&message)) begun(reserve->work);
  if (const auto* const cancel = std::get_if<Cancel>(&message)) {
    const Trace trace = trace_of(cancel->attempt.request);
    log_event(
        spdlog::level::debug, "request_cancelled",
        {{"request", id_text(cancel->attempt.request)}, {"trace_id", trace.trace_id}, {"parent_id", trace.parent_id}});
  }
}

void NodeRequestLog::begun(const Work& work) {
  const RequestId request = work.attempt.request;
  if (work.trace) traces_[request] = {work.trace->trace_text(), work.trace->parent_text()};
  const Trace trace = trace_of(request);
  log_event(spdlog::level::debug, "request_begun",
            {{"request", id_text(request)},
             {"trace_id", trace.trace_id},
             {"parent_id", trace.parent_id},
             {"attempt", static_cast<uint32_t>(work.attempt.epoch)},
             {"prompt_tokens", work.prompt.size()},
             {"output_tokens_max", work.output_tokens_max}});
}

void NodeRequestLog::sends(const Message& message) {
  if (const auto* const one = std::get_if<Token>(&message)) token(*one);
  if (const auto* const one = std::get_if<Failed>(&message)) failed(*one);
}

// The first of each node and the last: never a line for every token, and never the token.
void NodeRequestLog::token(const Token& token) const {
  const bool last = token.finish != FinishReason::kNone;
  if (token.index > 1 && !last) return;
  const NodeTimings& timings = token.timings;
  const Trace trace = trace_of(token.attempt.request);
  const std::string request = id_text(token.attempt.request);
  if (token.index == 0)
    log_event(spdlog::level::debug, "request_prefilled",
              {{"request", request},
               {"trace_id", trace.trace_id},
               {"parent_id", trace.parent_id},
               {"cached_tokens", timings.cached_tokens},
               {"wait_ms", ms_of(timings.wait_us)},
               {"compute_ms", ms_of(timings.compute_us)}});
  if (token.index == 1)
    log_event(spdlog::level::debug, "request_decodes",
              {{"request", request},
               {"trace_id", trace.trace_id},
               {"parent_id", trace.parent_id},
               {"cached_tokens", timings.cached_tokens},
               {"transfer_ms", ms_of(timings.transfer_us)},
               {"commit_ms", ms_of(timings.commit_us)},
               {"wait_ms", ms_of(timings.wait_us)},
               {"step_ms", ms_of(timings.compute_us)}});
  if (last)
    log_event(spdlog::level::debug, "request_done",
              {{"request", request},
               {"trace_id", trace.trace_id},
               {"parent_id", trace.parent_id},
               {"output_tokens", token.index + 1}});
}

void NodeRequestLog::failed(const Failed& failed) {
  if (std::exchange(last_failed_, failed.attempt) == failed.attempt) return;
  const Trace trace = trace_of(failed.attempt.request);
  const bool routine = failed.code == ErrorCode::kNoSpace || failed.code == ErrorCode::kCancelled;
  log_event(routine ? spdlog::level::debug : spdlog::level::warn, "request_failed",
            {{"request", id_text(failed.attempt.request)},
             {"trace_id", trace.trace_id},
             {"parent_id", trace.parent_id},
             {"code", error_name(failed.code)},
             {"detail", failed.detail}});
}

}  // namespace spillway
