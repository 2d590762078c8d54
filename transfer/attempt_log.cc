#include "transfer/attempt_log.h"

#include <fmt/core.h>

#include <algorithm>
#include <limits>

#include "common/check.h"

namespace spillway {

EndedAttempts::EndedAttempts(uint32_t requests_max) : requests_max_(requests_max) { CHECK(requests_max > 0); }

void EndedAttempts::add(RequestId request, Epoch epoch) {
  const auto [entry, is_new] = highest_.try_emplace(request, epoch);
  if (!is_new) {
    entry->second = std::max(entry->second, epoch);
    return;
  }
  order_.push_back(request);
  if (order_.size() <= requests_max_) return;
  highest_.erase(order_.front());
  order_.pop_front();
}

bool EndedAttempts::contains(RequestId request, Epoch epoch) const {
  const auto entry = highest_.find(request);
  return entry != highest_.end() && entry->second >= epoch;
}

Result<void> check_work(const Work& work, uint32_t vocab_size, uint32_t max_model_len) {
  if (work.prompt.empty()) return fail(ErrorCode::kInvalidArgument, "the prompt is empty; send at least one token");
  if (work.output_tokens_max == 0) {
    return fail(ErrorCode::kInvalidArgument, "0 output tokens were asked for; ask for at least 1");
  }
  const uint64_t tokens = uint64_t{work.prompt.size()} + work.output_tokens_max;
  if (tokens > max_model_len) {
    return fail(ErrorCode::kTooLong,
                fmt::format("{} prompt + {} output tokens exceed the context of {}; shorten either", work.prompt.size(),
                            work.output_tokens_max, max_model_len));
  }
  const auto outside = [&](TokenId id) { return id >= vocab_size; };
  const auto refuse = [&](std::string_view what, ptrdiff_t index, TokenId id) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} {} has id {}, but the vocabulary ends at {}", what, index, id, vocab_size));
  };
  if (const auto id = std::ranges::find_if(work.prompt, outside); id != work.prompt.end()) {
    return refuse("prompt token", id - work.prompt.begin(), *id);
  }
  if (const auto id = std::ranges::find_if(work.stop_tokens, outside); id != work.stop_tokens.end()) {
    return refuse("stop token", id - work.stop_tokens.begin(), *id);
  }
  const std::vector<LogitBias>& biases = work.sampling.logit_bias;
  if (const auto one = std::ranges::find_if(biases, outside, &LogitBias::token); one != biases.end()) {
    return refuse("logit_bias entry", one - biases.begin(), one->token);
  }
  return {};
}

FinishReason finish_of(const Work& work, uint32_t index, TokenId token) {
  if (std::find(work.stop_tokens.begin(), work.stop_tokens.end(), token) != work.stop_tokens.end()) {
    return FinishReason::kStop;
  }
  return index + 1 >= work.output_tokens_max ? FinishReason::kLength : FinishReason::kNone;
}

uint32_t timing_us(Duration duration) {
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(duration).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(us, 0, std::numeric_limits<uint32_t>::max()));
}

}  // namespace spillway
