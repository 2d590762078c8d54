#include "gateway/route_table.h"

#include <algorithm>
#include <iterator>

namespace spillway {
namespace {

constexpr std::string_view kModelRoute = "/v1/models/{name}";
constexpr RouteRule kRoutes[] = {
    {"/v1/completions", Route::kCompletions, "Completion", "text that goes on from a prompt"},
    {"/v1/chat/completions", Route::kChatCompletions, "ChatCompletion", "the assistant's turn in a chat"},
    {"/v1/models", {}, "ModelList", "what this server answers for"},
    {kModelRoute, {}, "Model", "one of its names; `/` may be written `%2F`"},
    {"/tokenize", Route::kTokenize, "Tokens", "the token ids of a text, or those of a chat"},
    {"/detokenize", Route::kDetokenize, "Text", "the text of token ids, special tokens spelled"},
    {"/version", {}, "Version", "of the build"},
    {"/health/live", {}, "Health", "200 while the event loop answers"},
    {"/health/ready", {}, "Health", "200, or 503 with a reason"},
    {"/health", {}, "Health", "the same as `/health/ready`"},
    {"/metrics", {}, "text/plain", "Prometheus text"},
    {"/openapi.json", {}, "application/json", "this API as OpenAPI 3.1, with the bounds of the served model"},
};

}  // namespace

std::span<const RouteRule> route_table() { return kRoutes; }

const RouteRule* find_route(std::string_view path) {
  if (path.starts_with(kModelPath)) path = kModelRoute;
  const auto* const found =
      std::find_if(std::begin(kRoutes), std::end(kRoutes), [&](const RouteRule& rule) { return rule.path == path; });
  return found == std::end(kRoutes) ? nullptr : found;
}

}  // namespace spillway
