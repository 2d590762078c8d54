#include "transfer/control_endpoint.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdint>

#include "common/quote.h"

namespace spillway {
namespace {

constexpr std::string_view kIpc = "ipc://", kTcp = "tcp://";

bool is_loopback(const std::string& host) {
  in_addr v4{};
  return ::inet_pton(AF_INET, host.c_str(), &v4) == 1 && (ntohl(v4.s_addr) >> 24) == 127;
}

bool is_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), port);
  return status == std::errc() && end == text.data() + text.size() && port > 0;
}

}  // namespace

Result<std::string> local_control_endpoint(std::string_view endpoint) {
  if (endpoint.starts_with(kIpc) && endpoint.size() > kIpc.size()) return std::string(endpoint);
  const std::string_view address = endpoint.starts_with(kTcp) ? endpoint.substr(kTcp.size()) : std::string_view();
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos || !is_port(address.substr(colon + 1)))
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} is no endpoint: ipc://PATH or tcp://127.0.0.1:PORT", quote_foreign(endpoint)));
  std::string host(address.substr(0, colon));
  if (host == "localhost") host = "127.0.0.1";
  if (!is_loopback(host))
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("{} is not on this machine for sure: peers have no keys yet, so only ipc://PATH and "
                            "tcp://127.0.0.1:PORT are taken",
                            quote_foreign(endpoint)));
  return fmt::format("{}{}{}", kTcp, host, address.substr(colon));
}

}  // namespace spillway
