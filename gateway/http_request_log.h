#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/ids.h"
#include "common/log.h"
#include "common/trace_context.h"
#include "gateway/gateway.h"
#include "gateway/http_reply.h"

namespace spillway {

// The log lines about one HTTP request. Each names it as the nodes' lines do (`request`), as its client does
// (`x_request_id`), and by its client's trace; one about a choice whose `request` is not the id that the answer carries
// names that too (`answer`). A value.
class HttpRequestLog {
 public:
  HttpRequestLog() = default;
  // From its header: X-Request-Id where it is harmless, `traceparent` where there is exactly one and it is valid.
  HttpRequestLog(RequestId id, const HttpRequest& request);

  // What the nodes' lines carry too. A bad header counts as none, and no trace is made up.
  const std::optional<TraceContext>& trace() const { return trace_; }

  void done(const StreamEnd& end) const;
  void failed(RequestId request, const Error& error) const;
  void cancelled(std::string_view why) const;
  void fault(std::string_view what) const;                          // of the server, not of the request
  void refused(unsigned status, const HttpRequest& request) const;  // an error status, whatever sent it; debug

 private:
  std::string answer_of(RequestId request) const;

  std::string id_, client_id_, trace_id_, parent_id_;
  std::optional<TraceContext> trace_;
};

}  // namespace spillway
