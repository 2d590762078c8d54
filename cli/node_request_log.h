#pragma once

#include <cstddef>
#include <map>
#include <string>

#include "common/ids.h"
#include "transfer/messages.h"

namespace spillway {

// A node's log lines about requests, told by the messages that come and go: begun, prefilled, committed, done (debug)
// and failed (warning; for lack of space, which is tried again, debug). Each names the request as the gateway's lines
// do, and the client's trace. Loop thread.
class NodeRequestLog {
 public:
  // A node core holds at most `requests_max` at once.
  explicit NodeRequestLog(size_t requests_max) : requests_max_(requests_max) {}

  void received(const Message& message);
  void sends(const Message& message);
  // REQUIRES: called now and then: forgets what `holds(request)` says the node does not have any more.
  template <class Holds>
  void forget_ended(Holds&& holds) {
    if (traces_.size() > requests_max_) std::erase_if(traces_, [&](const auto& entry) { return !holds(entry.first); });
  }

 private:
  struct Trace {
    std::string trace_id, parent_id;  // empty: none
  };
  void begun(const Work& work);
  void token(const Token& token) const;
  void failed(const Failed& failed);
  Trace trace_of(RequestId request) const;

  const size_t requests_max_;
  Attempt last_failed_;                // several peers are told, the log once
  std::map<RequestId, Trace> traces_;  // of requests that have one
};

}  // namespace spillway
