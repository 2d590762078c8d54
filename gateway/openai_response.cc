#include "gateway/openai_response.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "common/clock.h"
#include "common/version.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

// Text from a detokeniser is UTF-8 already; an error's detail may come from elsewhere, and dumping it must not throw.
std::string dump(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json null_or(std::string_view text) { return text.empty() ? Json(nullptr) : Json(text); }

const char* finish_word(FinishReason finish) { return finish == FinishReason::kLength ? "length" : "stop"; }

// To the microsecond: what the clock behind it is good for.
double rounded_ms(Duration duration) { return std::round(milliseconds(duration) * 1e3) / 1e3; }

Json timings(const Waterfall& waterfall) {
  return {{"queue_ms", rounded_ms(waterfall.queue)},
          {"prefill_wait_ms", rounded_ms(waterfall.prefill_wait)},
          {"prefill_ms", rounded_ms(waterfall.prefill)},
          {"transfer_ms", rounded_ms(waterfall.transfer)},
          {"commit_ms", rounded_ms(waterfall.commit)},
          {"decode_queue_ms", rounded_ms(waterfall.decode_queue)},
          {"decode_step_ms", rounded_ms(waterfall.decode_step)},
          {"ttft_ms", rounded_ms(waterfall.ttft)},
          {"handover_ms", rounded_ms(waterfall.handover)},
          {"total_ms", rounded_ms(waterfall.total)},
          {"prefill_cached_tokens", waterfall.prefill_cached_tokens},
          {"decode_cached_tokens", waterfall.decode_cached_tokens}};
}

Json usage(const Waterfall& waterfall) {
  return {{"prompt_tokens", waterfall.prompt_tokens},
          {"completion_tokens", waterfall.output_tokens},
          {"total_tokens", uint64_t{waterfall.prompt_tokens} + waterfall.output_tokens},
          {"prompt_tokens_details", {{"cached_tokens", waterfall.prefill_cached_tokens}}}};
}

Json envelope(const AnswerHead& head, const char* chat_object) {
  const bool chat = head.endpoint == Endpoint::kChatCompletions;
  return {{"id", head.id},
          {"object", chat ? chat_object : "text_completion"},
          {"created", head.created},
          {"model", head.model},
          {"choices", Json::array()}};
}

Json finish_reason(FinishReason finish) { return finish == FinishReason::kNone ? Json() : Json(finish_word(finish)); }

Json logprobs_of(const ChoicePiece& piece) { return piece.logprobs == nullptr ? Json() : *piece.logprobs; }

Json chunk_choice(const AnswerHead& head, const ChoicePiece& piece) {
  Json choice = {{"index", piece.index}};
  if (head.endpoint == Endpoint::kChatCompletions) {
    Json delta = Json::object();
    if (piece.first) delta["role"] = "assistant";
    if (piece.first || piece.finish == FinishReason::kNone || !piece.text.empty()) delta["content"] = piece.text;
    choice["delta"] = std::move(delta);
  } else {
    choice["text"] = piece.text;
  }
  choice["logprobs"] = logprobs_of(piece);
  choice["finish_reason"] = finish_reason(piece.finish);
  return choice;
}

void add_usage(Json& chunk, const AnswerHead& head, uint32_t tokens_so_far) {
  if (head.usage_null) chunk["usage"] = nullptr;
  if (!head.usage_of_prompt) return;
  chunk["usage"] = {{"prompt_tokens", *head.usage_of_prompt},
                    {"completion_tokens", tokens_so_far},
                    {"total_tokens", uint64_t{*head.usage_of_prompt} + tokens_so_far}};
}

Json model_object(std::string_view model, uint32_t max_model_len, int64_t created) {
  return {{"id", model},
          {"object", "model"},
          {"created", created},
          {"owned_by", "spillway"},
          {"max_model_len", max_model_len}};
}

}  // namespace

ApiError to_api_error(const Error& error, std::string_view request_id) {
  ApiError answer{.message = error.detail, .type = "server_error", .code = std::string(error_name(error.code))};
  switch (error.code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      answer.status = 400;
      answer.type = "invalid_request_error";
      break;
    case ErrorCode::kTooLong:
      answer.status = 400;
      answer.type = "invalid_request_error";
      answer.code = "context_length_exceeded";
      break;
    case ErrorCode::kQueueFull:
      answer.status = 429;
      answer.type = "rate_limit_error";
      answer.retry_after_s = kRetryAfterSeconds;
      break;
    case ErrorCode::kNoSpace:
    case ErrorCode::kPeerLost:
    case ErrorCode::kUnavailable:
    case ErrorCode::kCancelled:
      answer.status = 503;
      answer.retry_after_s = kRetryAfterSeconds;
      break;
    case ErrorCode::kDeadline: answer.status = 504; break;
    case ErrorCode::kCorrupt:
    case ErrorCode::kInternal:
      answer.status = 500;
      answer.message = fmt::format("{} (request {})", error.detail, request_id);
      break;
  }
  if (answer.message.empty()) answer.message = answer.code;
  return answer;
}

std::string error_body(const ApiError& error) {
  return dump({{"error",
                {{"message", error.message},
                 {"type", error.type},
                 {"param", null_or(error.param)},
                 {"code", null_or(error.code)}}}});
}

std::string token_chunk(const AnswerHead& head, const ChoicePiece& piece, const AnswerToken& token) {
  Json chunk = envelope(head, "chat.completion.chunk");
  chunk["choices"].push_back(chunk_choice(head, piece));
  add_usage(chunk, head, token.tokens_so_far);
  if (token.logits_digest) {
    chunk["token_id"] = token.token;
    chunk["logits_digest"] = fmt::format("{:016x}", *token.logits_digest);
  }
  return dump(chunk);
}

std::string finish_chunk(const AnswerHead& head, const ChoicePiece& piece, const Waterfall& waterfall,
                         uint32_t tokens_so_far) {
  Json chunk = envelope(head, "chat.completion.chunk");
  chunk["choices"].push_back(chunk_choice(head, piece));
  add_usage(chunk, head, tokens_so_far);
  chunk["timings"] = timings(waterfall);
  return dump(chunk);
}

std::string usage_chunk(const AnswerHead& head, const Waterfall& waterfall) {
  Json chunk = envelope(head, "chat.completion.chunk");
  chunk["usage"] = usage(waterfall);
  return dump(chunk);
}

std::string answer_body(const AnswerHead& head, const std::vector<ChoicePiece>& choices,
                        const std::vector<AnswerToken>& tokens, const Waterfall& waterfall) {
  Json body = envelope(head, "chat.completion");
  for (const ChoicePiece& piece : choices) {
    Json choice = {{"index", piece.index}};
    if (head.endpoint == Endpoint::kChatCompletions) {
      choice["message"] = {{"role", "assistant"}, {"content", piece.text}};
    } else {
      choice["text"] = piece.text;
    }
    choice["logprobs"] = logprobs_of(piece);
    choice["finish_reason"] = finish_reason(piece.finish);
    body["choices"].push_back(std::move(choice));
  }
  body["usage"] = usage(waterfall);
  body["timings"] = timings(waterfall);
  for (const AnswerToken& token : tokens) {
    if (!token.logits_digest) continue;
    body["token_ids"].push_back(token.token);
    body["logits_digests"].push_back(fmt::format("{:016x}", *token.logits_digest));
  }
  return dump(body);
}

std::string models_body(const std::vector<std::string>& models, uint32_t max_model_len, int64_t created) {
  Json list = {{"object", "list"}, {"data", Json::array()}};
  for (const std::string& model : models) list["data"].push_back(model_object(model, max_model_len, created));
  return dump(list);
}

std::string model_body(std::string_view model, uint32_t max_model_len, int64_t created) {
  return dump(model_object(model, max_model_len, created));
}

std::string version_body() { return dump({{"version", version()}}); }

std::string live_body() { return dump({{"status", "ok"}}); }

std::string health_body(const GatewayHealth& health) {
  Json body{{"status", health.ready() ? "ok" : health.draining ? "draining" : "unavailable"}};
  if (!health.ready()) {
    body["code"] = error_name(ErrorCode::kUnavailable);
    body["reason"] = health.reasons.front();
    body["reasons"] = health.reasons;
  }
  if (!health.degraded.empty()) body["degraded"] = health.degraded;
  return dump(body);
}

}  // namespace spillway
