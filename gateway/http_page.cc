#include "gateway/http_page.h"

#include <fmt/format.h>

#include <charconv>
#include <string>

#include "gateway/openapi.h"
#include "gateway/route_table.h"

namespace spillway {

namespace {

// RFC 3986, section 2.1; a % without two hex digits stays as it is.
std::string percent_decoded(std::string_view text) {
  std::string out;
  for (size_t at = 0; at < text.size(); ++at) {
    unsigned char byte = 0;
    const char* const digits = text.data() + at + 1;
    if (text[at] == '%' && at + 2 < text.size() && std::from_chars(digits, digits + 2, byte, 16).ptr == digits + 2) {
      out.push_back(static_cast<char>(byte));
      at += 2;
    } else {
      out.push_back(text[at]);
    }
  }
  return out;
}

}  // namespace

HttpResponse page_of(std::string_view path, const HttpReply& reply, HttpShared& shared) {
  const ServedModel& model = shared.model();
  if (path == "/health/live") return reply.json(live_body());
  if (path == "/health/ready" || path == "/health") {
    const GatewayHealth health = shared.health();
    HttpResponse response = reply.text(health.ready() ? 200 : 503, kJsonType, health_body(health));
    if (!health.ready()) response.set(boost::beast::http::field::retry_after, std::to_string(kRetryAfterSeconds));
    return response;
  }
  if (path == "/metrics")
    return reply.text(200, "text/plain; version=0.0.4; charset=utf-8",
                      shared.metrics().text(shared.status(), shared.health().ready(), shared.connections()));
  if (path == "/version") return reply.json(version_body());
  if (path == "/v1/models") return reply.json(models_body(model.names(), shared.max_model_len(), shared.started()));
  if (path == "/openapi.json") return reply.json(openapi_body(model, shared.max_model_len()));
  const std::string name = percent_decoded(path.substr(kModelPath.size()));
  if (model.has_name(name)) return reply.json(model_body(name, shared.max_model_len(), shared.started()));
  return reply.error(
      {.status = 404,
       .message = fmt::format("that model does not exist here: this server has '{}'", fmt::join(model.names(), "', '")),
       .param = "model",
       .code = "model_not_found"});
}

}  // namespace spillway
