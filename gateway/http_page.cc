#include "gateway/http_page.h"

#include <fmt/format.h>

namespace spillway {

HttpResponse page_of(std::string_view path, const HttpReply& reply, HttpShared& shared) {
  const ServedModel& model = shared.model();
  if (path == "/health/live") return reply.json(live_body());
  if (path == "/health/ready" || path == "/health") {
    const GatewayHealth health = shared.health();
    return reply.text(health.ready() ? 200 : 503, kJsonType, health_body(health));
  }
  if (path == "/metrics")
    return reply.text(200, "text/plain; version=0.0.4; charset=utf-8",
                      shared.metrics().text(shared.status(), shared.health().ready(), shared.connections()));
  if (path == "/version") return reply.json(version_body());
  if (path == "/v1/models") return reply.json(models_body(model.names(), shared.max_model_len(), shared.started()));
  const std::string_view name = path.substr(kModelPath.size());
  if (model.has_name(name)) return reply.json(model_body(name, shared.max_model_len(), shared.started()));
  return reply.error(
      {.status = 404,
       .message = fmt::format("that model does not exist here: this server has '{}'", fmt::join(model.names(), "', '")),
       .param = "model",
       .code = "model_not_found"});
}

}  // namespace spillway
