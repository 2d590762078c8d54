#include "cli/tls_files.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <optional>

#include "cli/private_file.h"
#include "common/check.h"

namespace spillway {

TlsIdentity read_tls_identity(const Options& options) {
  if (options.tls_cert.empty() && options.tls_key.empty()) return {};
  if (options.tls_cert.empty() || options.tls_key.empty())
    throw SetupError(fmt::format("{} is given without {}: TLS needs both",
                                 options.tls_cert.empty() ? "--tls-key" : "--tls-cert",
                                 options.tls_cert.empty() ? "--tls-cert" : "--tls-key"));
  TlsIdentity identity;
  identity.certificate_path = options.tls_cert;
  identity.key_path = options.tls_key;
  const UniqueFd certificate(::open(options.tls_cert.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!certificate)
    throw SetupError(fmt::format("cannot open TLS certificate file {}: {}", options.tls_cert, std::strerror(errno)));
  identity.certificate_pem = read_small_file(certificate, options.tls_cert, "TLS certificate");
  const std::optional<UniqueFd> key = open_private_file(options.tls_key, "TLS key", Links::kFollowed);
  if (!key) throw SetupError(fmt::format("there is no TLS key file {}", options.tls_key));
  identity.key_pem = read_small_file(*key, options.tls_key, "TLS key");
  if (!identity.given()) throw SetupError(fmt::format("TLS certificate file {} is empty", options.tls_cert));
  check_tls_identity(identity);
  return identity;
}

}  // namespace spillway
