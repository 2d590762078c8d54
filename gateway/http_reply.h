#pragma once

#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "common/ids.h"
#include "common/result.h"
#include "gateway/http_body.h"
#include "gateway/openai_response.h"

namespace spillway {

using HttpRequest = boost::beast::http::request<ArrivingBody>;
using HttpResponse = boost::beast::http::response<boost::beast::http::string_body>;

inline constexpr std::string_view kJsonType = "application/json";

// What every reply to one request carries: made from its header, before its body is read. A value, no I/O.
class HttpReply {
 public:
  HttpReply() = default;
  // Takes the client's X-Request-Id where it is harmless, else `own_name`.
  HttpReply(const HttpRequest& request, std::string own_name);

  const std::string& request_name() const { return request_name_; }
  unsigned http_version() const { return http_version_; }  // 10 or 11
  void warn(std::string warning) { warning_ = std::move(warning); }

  HttpResponse text(unsigned status, std::string_view content_type, std::string body) const;
  HttpResponse json(std::string body) const { return text(200, kJsonType, std::move(body)); }
  HttpResponse error(const ApiError& error) const;
  void set_common(boost::beast::http::fields& header) const;

  // The reply to a request that must not be served, told from its header alone: path, method, content type.
  std::optional<HttpResponse> refuse(const HttpRequest& request) const;
  // The reply to a request that shows no key of this server.
  HttpResponse unauthorized(const HttpRequest& request) const;
  // The reply to a request that was not whole in time.
  HttpResponse too_slow(std::string_view what, double limit_s) const;
  // The reply to bytes that Beast's parser refused, by its error.
  HttpResponse unreadable(const boost::system::error_code& error, size_t header_bytes_max, size_t body_bytes_max) const;
  HttpResponse malformed(std::string_view why) const;  // 400

 private:
  std::string request_name_ = "unknown";
  std::string warning_;
  unsigned http_version_ = 11;
};

// The client's X-Request-Id where it is harmless, else empty.
std::string_view client_request_name(const HttpRequest& request);

ApiError busy(std::string message);  // 503, to be tried again
ApiError draining();                 // likewise

// The path of a request target, without query. A view into `target`.
std::string_view path_of(std::string_view target);

// Whoever watches the server needs no key: health tells nothing of what is served.
bool needs_key(std::string_view path);

}  // namespace spillway
