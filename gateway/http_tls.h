#pragma once

#include <boost/asio/ssl/context.hpp>

#include "gateway/tls_identity.h"

namespace spillway {

// TLS 1.2 and 1.3 as a server, without renegotiation, compression and a session cache; of ALPN (RFC 7301) it takes
// http/1.1 and refuses a client that offers only others. Throws as check_tls_identity().
boost::asio::ssl::context make_tls_context(const TlsIdentity& identity);

}  // namespace spillway
