#include "gateway/http_framing.h"

#include <boost/beast/core/string.hpp>

namespace spillway {
namespace {

namespace beast = boost::beast;
namespace http = beast::http;

}  // namespace

std::string_view framing_fault(const HttpRequest& request) {
  const bool old = request.version() == 10;
  if (!old && request.version() != 11) return "its version is neither HTTP/1.0 nor HTTP/1.1";
  if (!old && request.count(http::field::host) != 1) return "it needs one Host";
  const size_t lengths = request.count(http::field::content_length);
  const std::string_view length = request[http::field::content_length];
  if (lengths > 1 || length.find(',') != length.npos) return "it has more than one Content-Length";
  const size_t codings = request.count(http::field::transfer_encoding);
  if (codings == 0) return {};
  if (old) return "HTTP/1.0 has no Transfer-Encoding";
  if (lengths > 0) return "it has Content-Length and Transfer-Encoding";
  if (codings > 1 || !beast::iequals(request[http::field::transfer_encoding], "chunked"))
    return "the only Transfer-Encoding taken is chunked";
  return {};
}

bool awaits_continue(const HttpRequest& request) {
  return request.version() != 10 && beast::iequals(request[http::field::expect], "100-continue");
}

}  // namespace spillway
