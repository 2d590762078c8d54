#include "gateway/http_tls.h"

#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <boost/asio/buffer.hpp>
#include <string_view>

#include "common/check.h"

namespace spillway {
namespace {

namespace asio = boost::asio;
namespace ssl = asio::ssl;
using boost::system::error_code;

constexpr unsigned char kHttp11[] = {8, 'h', 't', 't', 'p', '/', '1', '.', '1'};

int choose_protocol(SSL*, const unsigned char** chosen, unsigned char* chosen_bytes, const unsigned char* offered,
                    unsigned int offered_bytes, void*) {
  unsigned char* found = nullptr;
  if (SSL_select_next_proto(&found, chosen_bytes, kHttp11, sizeof kHttp11, offered, offered_bytes) !=
      OPENSSL_NPN_NEGOTIATED)
    return SSL_TLSEXT_ERR_ALERT_FATAL;
  *chosen = found;
  return SSL_TLSEXT_ERR_OK;
}

[[noreturn]] void refuse(std::string_view what, const std::string& path, std::string_view why) {
  throw SetupError(fmt::format("TLS {} file {} {}", what, path, why));
}

void check_validity(X509* certificate, const std::string& path) {
  // 0 is an error of the format; the comparison is with now.
  if (X509_cmp_time(X509_get0_notAfter(certificate), nullptr) <= 0)
    refuse("certificate", path, "has expired: renew it (openssl x509 -enddate -noout -in FILE shows when)");
  if (X509_cmp_time(X509_get0_notBefore(certificate), nullptr) >= 0)
    refuse("certificate", path, "is not valid yet: check this machine's clock, or wait");
}

}  // namespace

ssl::context make_tls_context(const TlsIdentity& identity) {
  ssl::context context(ssl::context::tls_server);
  SSL_CTX* const handle = context.native_handle();
  CHECK(SSL_CTX_set_min_proto_version(handle, TLS1_2_VERSION) == 1);
  SSL_CTX_set_options(handle, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(handle, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_mode(handle, SSL_MODE_RELEASE_BUFFERS);  // an idle connection holds no record buffers
  SSL_CTX_set_alpn_select_cb(handle, choose_protocol, nullptr);
  error_code error;
  context.set_password_callback(
      [](size_t, ssl::context::password_purpose) { return std::string(); });  // never a prompt

  context.use_certificate_chain(asio::buffer(identity.certificate_pem), error);
  if (error)
    refuse("certificate", identity.certificate_path,
           fmt::format("cannot be used: {}. It must hold PEM, the server's own certificate first", error.message()));
  check_validity(SSL_CTX_get0_certificate(handle), identity.certificate_path);
  context.use_private_key(asio::buffer(identity.key_pem), ssl::context::pem, error);
  if (error && ERR_GET_REASON(static_cast<unsigned long>(error.value())) == X509_R_KEY_VALUES_MISMATCH)
    refuse("key", identity.key_path,
           fmt::format("does not belong to the certificate in {}: give the pair that was made together",
                       identity.certificate_path));
  if (error)
    refuse("key", identity.key_path,
           fmt::format("cannot be used: {}. It must hold one private key in PEM, without a passphrase (openssl pkey "
                       "-in FILE -out NEW removes it)",
                       error.message()));
  return context;
}

void check_tls_identity(const TlsIdentity& identity) { (void)make_tls_context(identity); }

}  // namespace spillway
