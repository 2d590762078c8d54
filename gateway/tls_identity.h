#pragma once

#include <string>

namespace spillway {

// What the server shows its clients: --tls-cert and --tls-key as read, PEM. The paths are for errors only.
struct TlsIdentity {
  std::string certificate_path, key_path;
  std::string certificate_pem;  // the server's own first, then what leads to the root
  std::string key_pem;          // without a passphrase

  bool given() const { return !certificate_pem.empty(); }
};

// Throws SetupError, with file and remedy, where no server can show it: no PEM, another key's certificate, not valid
// now, a key under a passphrase or too weak.
void check_tls_identity(const TlsIdentity& identity);

}  // namespace spillway
