#pragma once

#include "cli/options.h"
#include "gateway/tls_identity.h"

namespace spillway {

// The files of --tls-cert and --tls-key, read and checked; none given: none. Throws SetupError where only one of them
// is given, one cannot be read, the key is open to others than its owner, or no server could show the pair.
TlsIdentity read_tls_identity(const Options& options);

}  // namespace spillway
