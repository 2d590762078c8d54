#include "gateway/api_call.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "common/check.h"

namespace spillway {
namespace {

using Json = nlohmann::ordered_json;

Parsed<ApiCall> tokenize(std::string_view body, const ServedModel& model, uint32_t max_model_len) {
  auto request = parse_tokenize_request(body, model, max_model_len);
  if (!request) return tl::unexpected(request.error());
  const Json answer = {
      {"tokens", request->tokens}, {"count", request->tokens.size()}, {"max_model_len", max_model_len}};
  return PlainAnswer{answer.dump(), std::move(request->ignored)};
}

// Special tokens give the text that /tokenize reads as such, so that the two undo each other.
Parsed<ApiCall> detokenize(std::string_view body, const ServedModel& model, uint32_t max_model_len) {
  auto request = parse_detokenize_request(body, model, max_model_len);
  if (!request) return tl::unexpected(request.error());
  std::string text;
  for (const TokenId token : request->tokens) text += model.tokenizer().token_bytes(token);
  const Json answer = {{"prompt", text}, {"content", text}};
  return PlainAnswer{answer.dump(-1, ' ', false, Json::error_handler_t::replace), std::move(request->ignored)};
}

}  // namespace

Parsed<ApiCall> parse_api_call(std::string_view path, std::string_view body, const ServedModel& model,
                               uint32_t max_model_len, uint64_t seed_default) {
  if (path == "/tokenize") return tokenize(body, model, max_model_len);
  if (path == "/detokenize") return detokenize(body, model, max_model_len);
  CHECK(path == "/v1/completions" || path == "/v1/chat/completions");
  const auto endpoint = path == "/v1/completions" ? Endpoint::kCompletions : Endpoint::kChatCompletions;
  return parse_api_request(endpoint, body, model, max_model_len, seed_default);
}

}  // namespace spillway
