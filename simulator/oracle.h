#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "gateway/gateway.h"
#include "simulator/faults.h"
#include "simulator/synthetic_model.h"
#include "transfer/messages.h"
#include "transfer/transfer_job.h"

namespace spillway {

// The judge of one simulated run: it knows what each request must be answered, who was hit by a fault, and what no
// process may ever do. Nobody asks it for anything but the first breach.
class Oracle {
 public:
  explicit Oracle(const SyntheticModel& model) : model_(model) {}

  enum class Outcome : uint8_t { kOpen, kEnded, kFailed, kLeft, kGatewayDied };
  void arrived(const GenerateRequest& work, bool too_long, ProcessId gateway);
  void streamed(const StreamToken& token);
  void ended(const StreamEnd& end);
  void failed(const StreamError& error);
  void left(RequestId request);  // its client
  void gateway_died(ProcessId gateway);

  // An attempt was placed, by the gateway.
  void placed(const Attempt& attempt, ProcessId node);
  // A fault hit these requests: they may fail from now on. Without one, none may.
  void touch(const Attempt& attempt, const std::string& by);
  void touch(TransferId transfer, const std::string& by);
  // Those placed on all of `nodes`, and by `gateway` if one is named.
  void touch_on(const std::vector<ProcessId>& nodes, std::optional<ProcessId> gateway, const std::string& by);

  // What a process did.
  void sent_parts(const SendParts& job);
  void cancelled(ProcessId node, const Attempt& attempt, TimePoint now);  // the word reached it
  void said(ProcessId node, const Message& message, TimePoint now);
  void breach(std::string what);  // the first one counts

  const std::optional<std::string>& first_breach() const { return breach_; }
  Outcome outcome(RequestId request) const { return requests_.at(request).outcome; }
  const std::set<ProcessId>& nodes_of(RequestId request) const { return requests_.at(request).nodes; }
  bool all_answered() const { return open_ == 0; }
  std::string unanswered() const;
  struct Totals {
    uint32_t requests = 0, ended = 0, failed = 0, left = 0, gateway_died = 0;
    uint32_t public_hits = 0;  // prefixes found that only another tenant can have left there
  };
  Totals totals() const;

 private:
  struct Request {
    GenerateRequest work;
    ReferenceAnswer expected;
    bool too_long = false;
    ProcessId gateway{};
    uint32_t streamed = 0;
    Outcome outcome = Outcome::kOpen;
    std::set<ProcessId> nodes;  // of all its attempts
    std::string touched_by;     // empty: by nothing
    bool corrupted = false;
  };
  Request* open_request(RequestId request, const char* what);
  void touch(Request& request, const std::string& by);
  void share_leaders_fate(Request& request);
  void reused(ProcessId node, const Attempt& attempt, uint32_t cached_tokens);
  bool had_before(ProcessId node, const Request& request, const Attempt& attempt, uint32_t cached_tokens) const;
  void close(Request& request, Outcome outcome);

  const SyntheticModel model_;
  std::map<RequestId, Request> requests_;
  std::map<TransferId, RequestId> transfers_;
  std::map<TransferId, std::set<std::pair<uint32_t, uint32_t>>> parts_sent_;  // (block, layer)
  std::map<std::pair<ProcessId, Attempt>, TimePoint> cancelled_;
  std::optional<std::string> breach_;
  uint32_t open_ = 0, public_hits_ = 0;
};

}  // namespace spillway
