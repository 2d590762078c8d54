#include "gateway/exposure.h"

#include <fmt/format.h>

namespace spillway {

std::string exposure_fault(std::string_view host, bool keys, bool tls) {
  if (keys && tls) return {};
  return fmt::format(
      "--host {} is reachable from other machines, and {}: give {}{}{}, or listen on 127.0.0.1, or say --insecure",
      host,
      keys  ? "without TLS their keys and prompts would be readable on the way"
      : tls ? "nobody would be asked for a key"
            : "nobody would be asked for a key and prompts would be readable on the way (no TLS)",
      keys ? "" : "--api-key-file", keys || tls ? "" : " and ", tls ? "" : "--tls-cert with --tls-key");
}

}  // namespace spillway
