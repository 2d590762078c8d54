#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "common/clock.h"
#include "common/ids.h"
#include "common/mailbox.h"
#include "gateway/api_keys.h"
#include "gateway/gateway.h"
#include "gateway/gateway_metrics.h"
#include "gateway/public_prefixes.h"
#include "gateway/served_model.h"
#include "gateway/tls_identity.h"

namespace spillway {

struct HttpConfig {
  std::string host = "127.0.0.1";
  uint16_t port = 8000;                // 0: any free one
  bool insecure = false;               // other machines may reach it without keys or TLS
  uint32_t connections_max = 512;      // a few more are let in to ask for health and metrics, or to be told 503
  size_t header_bytes_max = 16 << 10;  // more: 431
  size_t body_bytes_max = 8 << 20;     // more: 413
  size_t body_bytes_total_max =
      128 << 20;  // of all bodies in memory, of one key's half where there are several; more: 503
  size_t answer_bytes_total_max = 512 << 20;  // of large answers that clients have not taken, shared in the same way
  uint32_t stream_tokens_behind_max = 1024;   // tokens that a client has not taken yet; more: its request is cancelled
  // ... and their events. Tokens alone are no bound: with log-probabilities one makes 2 KB, and an answer has up to 128
  // choices. The scores of echoed prompts come all at once, up to 24 MB: a client must keep up with some.
  size_t stream_bytes_behind_max = 16 << 20;
  int socket_send_bytes = 256 << 10;          // kernel buffer of one connection
  Duration request_timeout = std::chrono::seconds(30);     // to a request's first byte, and from it to its last
  Duration header_timeout = std::chrono::seconds(10);      // of that, its header
  Duration write_timeout = std::chrono::seconds(30);       // a client takes less than kPaceBytes for so long: gone
  Duration stream_silence_max = std::chrono::seconds(15);  // then a comment, so that no proxy thinks a stream dead
  Duration loop_silence_max = std::chrono::seconds(10);    // no publish() for so long: not ready
  PublicPrefixes public_prefixes;                          // none: tenants share nothing
  ApiKeys keys;                                            // none: nobody is asked for one
  TlsIdentity tls;                                         // none: plain HTTP
  // When all connections are taken, one makes room that says nothing or whose request is not whole for so long.
  Duration idle_kept_min = std::chrono::seconds(1);
};

// http thread to loop thread.
using GatewayInput = std::variant<RequestArrived, ClientGone, StopFound>;
// Loop thread to one HTTP stream.
using StreamEvent = std::variant<StreamToken, StreamScores, StreamEnd, StreamError>;

// Open files that an HttpServer of `config` needs; it raises the soft limit to that.
uint64_t open_files_wanted(const HttpConfig& config);

// The HTTP side of the gateway: connections, JSON, text. Owns one thread ("http") that runs all connections, and a
// small pool that parses and tokenises, so that a long prompt stalls nobody's stream. It meets the loop thread in three
// places only: `inputs`, deliver() and publish().
//
// A request is announced by one RequestArrived, and answered by StreamTokens and one StreamEnd or StreamError. When its
// client leaves, falls behind or is shut out before that, one ClientGone follows, always; events that still come for it
// are ignored. One StopFound comes before where a stop string was found; it is answered by the end all the same.
class HttpServer {
 public:
  // Listens at once; throws SetupError when the address cannot be bound, other machines reach it and it lacks keys or
  // TLS without `insecure`, the process may not open so many files or nothing can show the TLS identity.
  // `inputs` needs room for 2 x connections_max (CHECK); a request that finds it full is answered 503, a ClientGone
  // or StopFound that does waits and is offered again. REQUIRES: `model` and `inputs` outlive the server.
  HttpServer(const HttpConfig& config, const ServedModel& model, Mailbox<GatewayInput>& inputs, BootId boot);
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  ~HttpServer();  // stop(), then waits for the thread: at most the grace

  uint16_t port() const;

  // Loop thread; never blocks. Memory: at most output_tokens_max events of a stream are on their way.
  void deliver(const StreamEvent& event);
  // Loop thread, at least once a second: a loop that falls silent makes /health/ready say so.
  void publish(GatewayStatus status);
  // Any thread. From now on what would start is answered 503 with Retry-After, and connections are not kept; the rest
  // goes on, health and metrics too.
  void drain();
  // Any thread. Accepts nobody any more; requests under way end in an error that says `why`. Clients have `grace` to
  // take their last words.
  void stop(std::string why = "the server is shutting down", Duration grace = std::chrono::seconds(2));
  // Any thread, after stop(): they have no more time.
  void hurry();
  bool gone() const;  // any thread: after stop(), all clients are; the loop is woken then

 private:
  class Service;
  std::unique_ptr<Service> service_;
};

}  // namespace spillway
