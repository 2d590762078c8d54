#pragma once

#include <prometheus/histogram.h>

#include <cstdint>
#include <map>
#include <string>

#include "gateway/gateway.h"

namespace spillway {

// What the loop publishes for /health/ready, /metrics and early checks; a value.
struct GatewayStatus {
  GatewayHealth health{.reasons = {"the gateway is starting"}};
  GatewayCounters counters;
  uint32_t max_model_len = 0;  // smallest of the connected nodes; 0: none
};

// The page behind GET /metrics: counts that the HTTP side keeps itself, and the gateway's as last published. Names are
// an interface: dashboards break when one changes (tests/gateway lists them). Base units, `_total` on counters. Http
// thread.
class GatewayMetrics {
 public:
  explicit GatewayMetrics(std::string model_name);
  void observe_first_token(Duration since_arrival);
  void observe_token_gap(Duration since_last);
  void observe_end(const Waterfall& waterfall);  // of a request that ended well
  void observe_response(unsigned http_status);
  void observe_tls_failure() { ++tls_failures_; }  // of a handshake
  // Prometheus text format 0.0.4.
  std::string text(const GatewayStatus& status, bool ready, uint32_t connections) const;

 private:
  const std::string model_name_;
  std::map<unsigned, uint64_t> responses_;  // by HTTP status; bounded by the statuses this server sends
  uint64_t tls_failures_ = 0;
  prometheus::Histogram ttft_, time_per_output_token_, token_gap_, prefill_, transfer_, handover_, total_;
};

}  // namespace spillway
