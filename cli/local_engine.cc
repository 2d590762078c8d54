#include "cli/local_engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace spillway {

LocalEngine::LocalEngine(LocalModel& model, uint32_t chunk_tokens, uint32_t sequences_max, const KvScarcity& scarcity)
    : cache_({.layout = model.kv().layout,
              .model = {},  // one process, one model: its cache meets no other's keys
              .encoding = {.order = BlockEncoding::Order::kCpuTiled,
                           .dtype = model.kv().layout.dtype,
                           .numerics = model.backend().numerics()},
              .slot_count = std::min(model.kv().slot_count, scarcity.slots_max)}),
      engine_({.limits = {.tokens_max = chunk_tokens + sequences_max,
                          .chunk_tokens = chunk_tokens,
                          .sequences_max = sequences_max},
               .max_model_len = model.limits().model_len,
               .vocab = model.config().vocab,
               .growth_margin = scarcity.growth_margin},
              cache_),
      events_(model.config().layer_count + 2u, waker_),
      executor_(model.backend(), model.decoder(), model.kv(),
                {.tokens_max = chunk_tokens + sequences_max,
                 .sequences_max = sequences_max,
                 .blocks_per_sequence_max = model.kv().layout.blocks_for(model.limits().model_len)},
                events_) {}

StepDone LocalEngine::compute(StepPlan plan) {
  executor_.submit(std::move(plan));
  for (;;) {
    std::optional<ComputeEvent> event = events_.take();
    if (!event) {
      waker_.wait(-1);
      waker_.drain();
    } else if (auto* done = std::get_if<StepDone>(&*event)) {
      return std::move(*done);
    }
  }
}

Result<void> LocalEngine::open(std::span<const Request> requests) {
  for (const Request& request : requests) {
    CHECK(request.tokens_max > 0);
    const auto prompt_tokens = checked_cast<uint32_t>(request.prompt.size());
    const Result<SequenceId> opened = engine_.open({.prompt = request.prompt,
                                                    .reserve_tokens = prompt_tokens + request.tokens_max - 1,
                                                    .reuse_tokens_max = prompt_tokens == 0 ? 0 : prompt_tokens - 1,
                                                    .sampling = request.sampling,
                                                    .tenant = {},
                                                    .digest_logits = request.digest_logits});
    if (!opened) return tl::unexpected<Error>(opened.error());
    running_.push_back(*opened);
  }
  for (const std::optional<SequenceId>& sequence : running_) engine_.begin_prefill(*sequence);
  return {};
}

void LocalEngine::close_all() {
  for (const std::optional<SequenceId>& sequence : running_)
    if (sequence) engine_.close(*sequence);
  running_.clear();
}

Result<std::vector<LocalEngine::Answer>> LocalEngine::generate(std::span<const Request> requests,
                                                               const OnToken& on_token) {
  std::vector<Answer> answers(requests.size());
  const TimePoint start = steady_now();
  if (const Result<void> opened = open(requests); !opened) {
    close_all();
    return tl::unexpected<Error>(opened.error());
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    answers[i].started = start;
    answers[i].cached_tokens = engine_.sequence(*running_[i]).cached_tokens;
  }
  std::vector<EngineToken> tokens;
  while (std::optional<StepPlan> plan = engine_.plan()) {
    tokens.clear();
    engine_.on(compute(std::move(*plan)), tokens);
    const TimePoint now = steady_now();
    for (const EngineToken& token : tokens) {
      const auto found = std::find(running_.begin(), running_.end(), token.sequence);
      const auto index = static_cast<size_t>(found - running_.begin());
      Answer& answer = answers[index];
      if (!token.finite) {
        close_all();
        return fail(ErrorCode::kInternal, fmt::format("logits of output token {} are not finite", token.index));
      }
      if (answer.tokens.empty()) answer.first_token = now;
      answer.last_token = now;
      answer.tokens.push_back(token.token);
      if (requests[index].digest_logits) answer.logits_digests.push_back(token.logits_digest);
      if (on_token) on_token(index, token);
      const bool stops = std::ranges::count(requests[index].stop_tokens, token.token) > 0;
      if (answer.tokens.size() < requests[index].tokens_max && !stops) continue;
      engine_.close(token.sequence);
      running_[index].reset();
    }
  }
  running_.clear();
  return answers;
}

}  // namespace spillway
