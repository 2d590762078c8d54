#include "gateway/gateway_metrics.h"

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>
#include <utility>
#include <vector>

#include "common/clock.h"

namespace spillway {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

const prometheus::Histogram::BucketBoundaries kBoundaries(kSecondsBuckets.begin(), kSecondsBuckets.end());

// Collects families; every sample carries the model's name.
class Page {
 public:
  explicit Page(const std::string& model_name) : model_name_(model_name) {}

  void family(const char* name, const char* help, MetricType type) { families_.push_back({name, help, type, {}}); }
  void sample(double value, Labels labels = {}) {
    ClientMetric& metric = add(std::move(labels));
    (families_.back().type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
  }
  void counter(const char* name, const char* help, uint64_t value) {
    family(name, help, MetricType::Counter);
    sample(static_cast<double>(value));
  }
  void gauge(const char* name, const char* help, double value) {
    family(name, help, MetricType::Gauge);
    sample(value);
  }
  void histogram(const char* name, const char* help, const prometheus::Histogram& source) {
    family(name, help, MetricType::Histogram);
    add({}).histogram = source.Collect().histogram;
  }
  void histogram(const char* name, const char* help, const WaitCounts& source) {
    family(name, help, MetricType::Histogram);
    ClientMetric::Histogram& histogram = add({}).histogram;
    for (size_t bucket = 0; bucket < source.counts.size(); ++bucket) {
      histogram.sample_count += source.counts[bucket];
      const bool last = bucket == kSecondsBuckets.size();
      histogram.bucket.push_back(
          {histogram.sample_count, last ? std::numeric_limits<double>::infinity() : kSecondsBuckets[bucket]});
    }
    histogram.sample_sum = source.seconds_sum;
  }
  std::string text() const { return prometheus::TextSerializer().Serialize(families_); }

 private:
  ClientMetric& add(Labels labels) {
    ClientMetric metric;
    metric.label = std::move(labels);
    metric.label.push_back({"model_name", model_name_});
    return families_.back().metric.emplace_back(std::move(metric));
  }

  const std::string& model_name_;
  std::vector<MetricFamily> families_;
};

void add_role_counts(Page& page, const RoleCounts& prefill, const RoleCounts& decode) {
  const std::pair<const char*, const RoleCounts*> roles[] = {{"prefill", &prefill}, {"decode", &decode}};
  page.family("spillway_kv_blocks", "KV blocks of all connected nodes; cached ones are kept until they are wanted.",
              MetricType::Gauge);
  for (const auto& [role, counts] : roles) {
    page.sample(counts->blocks_free, {{"role", role}, {"tier", "device"}, {"state", "free"}});
    page.sample(counts->blocks_cached, {{"role", role}, {"tier", "device"}, {"state", "cached"}});
    page.sample(counts->blocks_used, {{"role", role}, {"tier", "device"}, {"state", "used"}});
  }
  const auto by_role = [&](const char* name, const char* help, uint64_t NodeTotals::*count) {
    page.family(name, help, MetricType::Counter);
    for (const auto& [role, counts] : roles) page.sample(static_cast<double>(counts->totals.*count), {{"role", role}});
  };
  by_role("spillway_steps_total", "Forward passes.", &NodeTotals::steps);
  by_role("spillway_step_sequences_total", "Requests in each step, summed: over the steps, the batch size.",
          &NodeTotals::step_sequences);
  by_role("spillway_step_tokens_total", "Token rows in each step, summed.", &NodeTotals::step_tokens);
  const NodeTotals& received = decode.totals;
  page.counter("spillway_kv_transfers_total", "Requests whose KV blocks came whole to a decode node.",
               received.transfers);
  page.counter("spillway_kv_transfer_failures_total", "Requests whose KV blocks a decode node awaited in vain.",
               received.transfer_failures);
  page.counter("spillway_kv_transfer_bytes_total", "KV bytes of those that came whole.", received.transfer_bytes);
}

void add_counters(Page& page, const GatewayCounters& counters) {
  page.counter("spillway_requests_total", "Requests that reached the gateway's queue.", counters.requests);
  page.counter("spillway_requests_finished_total", "Requests answered in full.", counters.finished);
  page.counter("spillway_requests_cancelled_total",
               "Choices whose client left, or whose answer lost another of its choices.", counters.cancelled);
  page.family("spillway_request_errors_total", "Requests that ended in an error, by reason.", MetricType::Counter);
  // All of them from the start: a rate over what appears with its first error misses that one.
  for (uint8_t index = 0; index <= static_cast<uint8_t>(ErrorCode::kInternal); ++index) {
    const auto code = static_cast<ErrorCode>(index);
    const auto count = counters.errors.find(code);
    page.sample(count == counters.errors.end() ? 0.0 : static_cast<double>(count->second),
                {{"reason", std::string(error_name(code))}});
  }
  page.counter("spillway_prompt_tokens_total", "Prompt tokens of requests whose first token is out.",
               counters.prompt_tokens);
  page.counter("spillway_output_tokens_total", "Tokens that left for clients.", counters.output_tokens);
  page.counter("spillway_cached_tokens_total", "Prompt tokens whose KV was reused, not computed.",
               counters.cached_tokens);
  page.counter("spillway_preemptions_total", "Sequences that gave up their KV blocks for older ones.",
               counters.preemption.preemptions);
  page.counter("spillway_recomputed_tokens_total", "Tokens whose KV was computed again after a preemption.",
               counters.preemption.recomputed_tokens);
  page.gauge("spillway_requests_queued", "Requests waiting in the gateway.", counters.queued);
  page.gauge("spillway_requests_running", "Requests dispatched to nodes.", counters.running);
  page.family("spillway_nodes", "Connected nodes, by the role they announced.", MetricType::Gauge);
  page.sample(counters.prefill_nodes, {{"role", "prefill"}});
  page.sample(counters.decode_nodes, {{"role", "decode"}});
  add_role_counts(page, counters.prefill, counters.decode);
  page.gauge("spillway_kv_blocks_free", "KV blocks that could be taken now: free ones and cached ones.",
             counters.blocks_free);
}

}  // namespace

GatewayMetrics::GatewayMetrics(std::string model_name)
    : model_name_(std::move(model_name)),
      ttft_(kBoundaries),
      time_per_output_token_(kBoundaries),
      token_gap_(kBoundaries),
      prefill_(kBoundaries),
      transfer_(kBoundaries),
      handover_(kBoundaries),
      total_(kBoundaries) {}

void GatewayMetrics::observe_first_token(Duration since_arrival) { ttft_.Observe(seconds(since_arrival)); }

void GatewayMetrics::observe_token_gap(Duration since_last) { token_gap_.Observe(seconds(since_last)); }

void GatewayMetrics::observe_end(const Waterfall& waterfall) {
  prefill_.Observe(seconds(waterfall.prefill));
  total_.Observe(seconds(waterfall.total));
  if (waterfall.output_tokens < 2) return;  // one token: nothing was handed over, and no gap exists
  if (!waterfall.colocated) {
    handover_.Observe(seconds(waterfall.handover));
    if (waterfall.decode_cached_tokens < waterfall.prompt_tokens) transfer_.Observe(seconds(waterfall.transfer));
  }
  time_per_output_token_.Observe(seconds(waterfall.total - waterfall.ttft) / (waterfall.output_tokens - 1));
}

void GatewayMetrics::observe_response(unsigned http_status) { ++responses_[http_status]; }

std::string GatewayMetrics::text(const GatewayStatus& status, bool ready, uint32_t connections) const {
  Page page(model_name_);
  page.gauge("spillway_ready", "1 when requests would be served now, as /health/ready says.", ready ? 1 : 0);
  add_counters(page, status.counters);
  page.gauge("spillway_max_model_len_tokens", "Longest prompt and output together that the connected nodes take.",
             status.max_model_len);
  page.family("spillway_http_responses_total", "HTTP responses, by status.", MetricType::Counter);
  for (const auto& [code, count] : responses_)
    page.sample(static_cast<double>(count), {{"status", std::to_string(code)}});
  page.counter("spillway_tls_handshake_failures_total", "Clients whose TLS handshake failed or did not end.",
               tls_failures_);
  page.gauge("spillway_http_connections", "Open HTTP connections.", connections);
  page.histogram("spillway_time_to_first_token_seconds", "Arrival at the gateway to token 0.", ttft_);
  page.histogram("spillway_time_per_output_token_seconds", "Mean gap between the tokens of one request.",
                 time_per_output_token_);
  page.histogram("spillway_inter_token_latency_seconds", "Each gap between two tokens of one request.", token_gap_);
  page.histogram("spillway_request_queue_seconds",
                 "Arrival at the gateway to dispatch, or to the end of those that never were.",
                 status.counters.queue_waits);
  page.histogram("spillway_request_prefill_seconds", "First prefill step to token 0 sampled.", prefill_);
  page.histogram("spillway_kv_transfer_seconds",
                 "First to last KV part landed at the decode node; most of it hides behind the prefill.", transfer_);
  page.histogram("spillway_handover_seconds", "Token 0 to token 1: from the prefill to the decode node.", handover_);
  page.histogram("spillway_request_seconds", "Arrival at the gateway to the last token.", total_);
  return page.text();
}

}  // namespace spillway
