#include "gateway/http_reply.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http/error.hpp>
#include <utility>

#include "gateway/route_table.h"

namespace spillway {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

constexpr size_t kRequestNameBytesMax = 128;

bool is_json(std::string_view content_type) {
  const std::string_view type = content_type.substr(0, content_type.find(';'));
  return beast::iequals(type.substr(0, type.find_last_not_of(" \t") + 1), kJsonType);
}

// It is echoed into headers, logs and errors.
bool is_request_name(std::string_view name) {
  return !name.empty() && name.size() <= kRequestNameBytesMax && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' || c == '_' ||
           c == '.' || c == ':';
  });
}

}  // namespace

std::string_view client_request_name(const HttpRequest& request) {
  const std::string_view name = request["X-Request-Id"];
  return is_request_name(name) ? name : std::string_view{};
}

HttpReply::HttpReply(const HttpRequest& request, std::string own_name) : request_name_(std::move(own_name)) {
  if (const std::string_view name = client_request_name(request); !name.empty()) request_name_ = name;
  if (request.version() == 10) http_version_ = 10;
}

void HttpReply::set_common(http::fields& header) const {
  header.set(http::field::server, "spillway");
  header.set("X-Request-Id", request_name_);
  if (!warning_.empty()) header.set(http::field::warning, warning_);
}

HttpResponse HttpReply::text(unsigned status, std::string_view content_type, std::string body) const {
  HttpResponse response(static_cast<http::status>(status), http_version_);
  set_common(response);
  response.set(http::field::content_type, content_type);
  response.body() = std::move(body);
  return response;
}

HttpResponse HttpReply::error(const ApiError& error) const {
  HttpResponse response = text(error.status, kJsonType, error_body(error));
  if (error.retry_after_s) response.set(http::field::retry_after, std::to_string(*error.retry_after_s));
  return response;
}

std::optional<HttpResponse> HttpReply::refuse(const HttpRequest& request) const {
  const RouteRule* const route = find_route(path_of(request.target()));
  if (route == nullptr) {
    HttpResponse response =
        error({.status = 404, .message = "there is no such path: try /v1/models", .code = "not_found"});
    if (request.method() == http::verb::head) response.body().clear();  // nobody would read it
    return response;
  }
  const auto method = route->post() ? http::verb::post : http::verb::get;
  if (request.method() != method) {
    const std::string allow(http::to_string(method));
    HttpResponse response =
        error({.status = 405, .message = fmt::format("this path takes {} only", allow), .code = "method_not_allowed"});
    response.set(http::field::allow, allow);
    if (request.method() == http::verb::head) response.body().clear();  // nobody would read it
    return response;
  }
  // A page of another origin cannot send this type unasked, only others or none, so a browser cannot be made to use
  // a server on its host.
  if (route->post() && !is_json(request[http::field::content_type]))
    return error(
        {.status = 415,
         .message = "add the header Content-Type: application/json (curl: -H 'Content-Type: application/json')",
         .code = "unsupported_media_type"});
  return std::nullopt;
}

HttpResponse HttpReply::unauthorized(const HttpRequest& request) const {
  HttpResponse response = error({.status = 401,
                                 .message = "this server asks for a key: add the header Authorization: Bearer KEY with "
                                            "one of those in its --api-key-file",
                                 .code = "invalid_api_key"});
  response.set(http::field::www_authenticate, "Bearer");
  if (request.method() == http::verb::head) response.body().clear();  // nobody would read it
  return response;
}

HttpResponse HttpReply::too_slow(std::string_view what, double limit_s) const {
  return error({.status = 408,
                .message = fmt::format("the {} was not complete within {:g} s: send it faster", what, limit_s),
                .code = "request_timeout"});
}

HttpResponse HttpReply::unreadable(const boost::system::error_code& read_error, size_t header_bytes_max,
                                   size_t body_bytes_max) const {
  if (read_error == http::error::body_limit)
    return error({.status = 413,
                  .message = fmt::format("the body is larger than {} bytes", body_bytes_max),
                  .code = "body_too_large"});
  if (read_error == http::error::header_limit || read_error == http::error::buffer_overflow)
    return error({.status = 431,
                  .message = fmt::format("the header is larger than {} bytes", header_bytes_max),
                  .code = "header_too_large"});
  return malformed(read_error.message());
}

HttpResponse HttpReply::malformed(std::string_view why) const {
  return error({.status = 400, .message = fmt::format("this is not HTTP: {}", why), .code = "malformed_http"});
}

ApiError busy(std::string message) {
  return {.status = 503,
          .message = std::move(message),
          .type = "server_error",
          .code = "unavailable",
          .retry_after_s = kRetryAfterSeconds};
}

ApiError draining() { return busy("the server is draining: it takes no new requests; ask another, or later"); }

bool needs_key(std::string_view path) {
  const RouteRule* const route = find_route(path);
  return route == nullptr || !route->health();
}

std::string_view path_of(std::string_view target) { return target.substr(0, target.find_first_of("?#")); }

}  // namespace spillway
