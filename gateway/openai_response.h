#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "common/ids.h"
#include "common/result.h"
#include "gateway/gateway.h"

// The JSON that leaves, in OpenAI's shapes and with its exact object strings. Pure; any thread.
namespace spillway {

enum class Endpoint : uint8_t { kCompletions, kChatCompletions };

// Of a 503: room appears when a running request ends, a node when it is back: soon, at an unknown time.
inline constexpr unsigned kRetryAfterSeconds = 1;

// An answer that is an error, before it is JSON.
struct ApiError {
  unsigned status = 500;                       // HTTP
  std::string message = {};                    // cause, numbers, remedy; never prompt text
  std::string type = "invalid_request_error";  // invalid_request_error, rate_limit_error, server_error
  std::string param = {};                      // the field at fault; empty: null
  std::string code = {};                       // a word for programs; empty: null
  std::optional<unsigned> retry_after_s = {};  // seconds
};
template <class T>
using Parsed = tl::expected<T, ApiError>;

// What a node or the gateway could not do, as HTTP. Faults of ours name the request, so that a log can be searched.
ApiError to_api_error(const Error& error, std::string_view request_id);
// {"error":{"message","type","param","code"}}
std::string error_body(const ApiError& error);

struct AnswerHead {  // the same in every chunk of one answer
  Endpoint endpoint{};
  std::string id = {};  // "cmpl-..." or "chatcmpl-..."
  std::string model = {};
  int64_t created = 0;      // seconds since 1970
  bool usage_null = false;  // chunks carry "usage": null, as the last one carries it (stream_options.include_usage)
  // Set: chunks carry usage so far instead of null (continuous_usage_stats); the prompts' tokens.
  std::optional<uint32_t> usage_of_prompt = {};
};
struct AnswerToken {
  TokenId token = 0;
  uint32_t tokens_so_far = 0;  // of all choices, this one too
  std::optional<uint64_t> logits_digest =
      {};  // set: the chunk carries it, with the token id (extension `logit_digests`)
};

struct ChoicePiece {  // one choice's part of a chunk, or all of it
  size_t index = 0;
  std::string_view text;
  FinishReason finish = FinishReason::kNone;         // kNone: it goes on
  const nlohmann::ordered_json* logprobs = nullptr;  // none: null
  bool first = false;                                // the chat delta also carries the role
};

// Pieces of a stream, each the payload of one event.
std::string token_chunk(const AnswerHead& head, const ChoicePiece& piece, const AnswerToken& token);
// Carries finish_reason and `timings`; the text is what the detokeniser still held.
std::string finish_chunk(const AnswerHead& head, const ChoicePiece& piece, const Waterfall& waterfall,
                         uint32_t tokens_so_far);
// The chunk without choices that closes a stream with include_usage.
std::string usage_chunk(const AnswerHead& head, const Waterfall& waterfall);
// The whole answer at once; `tokens` are listed where they carry digests.
std::string answer_body(const AnswerHead& head, const std::vector<ChoicePiece>& choices,
                        const std::vector<AnswerToken>& tokens, const Waterfall& waterfall);

std::string models_body(const std::vector<std::string>& models, uint32_t max_model_len, int64_t created);
std::string model_body(std::string_view model, uint32_t max_model_len, int64_t created);
// {"version": ...}
std::string version_body();
// {"status": "ok"}
std::string live_body();
// The same or {"status": "draining" or "unavailable", "code", "reason": the first of "reasons"}; each with "degraded"
// where something is.
std::string health_body(const GatewayHealth& health);

}  // namespace spillway
