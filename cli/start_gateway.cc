#include "cli/start_gateway.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "cli/api_key_file.h"
#include "cli/calibration_turn.h"
#include "cli/child_process.h"
#include "cli/drain.h"
#include "cli/loading_watch.h"
#include "cli/memory_plan.h"
#include "cli/packed_model.h"
#include "cli/process_identity.h"
#include "cli/public_prefix_file.h"
#include "cli/secret_file.h"
#include "cli/serve_check.h"
#include "cli/tls_files.h"
#include "cli/trouble_socket.h"
#include "cli/value_or_throw.h"
#include "common/bounded_vector.h"
#include "common/fault_points.h"
#include "common/log.h"
#include "gateway/gateway.h"
#include "gateway/http_server.h"
#include "gateway/served_model.h"
#include "kv/block_key.h"
#include "text/tokenizer.h"
#include "transfer/control_loop.h"

namespace spillway {
namespace {

constexpr uint32_t kSpareConnections = 192;  // idle ones, and requests that find the queue full
constexpr Duration kPublishEvery = std::chrono::milliseconds(200);

// Turns what the gateway decided into calls on the thing that does it.
class Effects {
 public:
  Effects(ControlChannel& channel, HttpServer& http, FaultPoints& faults)
      : channel_(channel), http_(http), faults_(faults) {}

  void operator()(SendMessage& effect) {
    if (const auto* const refusal = std::get_if<HelloRefused>(&effect.message))
      log_event(spdlog::level::warn, "node refused", {{"reason", refusal->reason}});
    if (std::holds_alternative<Prefill>(effect.message) || std::holds_alternative<Reserve>(effect.message))
      faults_.pass("gateway-dispatch");
    channel_.send(effect.to, effect.message);  // a loss is told by PeerGone
  }
  void operator()(StreamToken& effect) {
    faults_.pass("gateway-token");
    http_.deliver(effect);
  }
  void operator()(StreamScores& effect) { http_.deliver(effect); }
  void operator()(StreamEnd& effect) {
    faults_.pass("gateway-end");
    http_.deliver(effect);
  }
  void operator()(StreamError& effect) { http_.deliver(effect); }

 private:
  ControlChannel& channel_;
  HttpServer& http_;
  FaultPoints& faults_;
};

void warn_of_loss(const ControlEvent& event) {
  if (const auto* const gone = std::get_if<PeerGone>(&event))
    log_event(spdlog::level::warn, "lost a node", {{"reason", gone->reason}});
}

void warn_of_difference(const ControlEvent& event, const Gateway& gateway) {
  const auto* const up = std::get_if<PeerUp>(&event);
  const std::string warning = up == nullptr ? "" : gateway.warning_about(up->peer);
  if (!warning.empty()) log_event(spdlog::level::warn, "nodes compute differently", {{"reason", warning}});
}

ServedModel::Settings settings_of(const Options& options, const ModelConfig& model, const Secret& secret) {
  ServedModel::Settings settings;
  settings.max_model_len = effective_model_len(options, model);
  settings.tenant = derive_tenant_key(secret, "default");
  for (const std::string& name : options.served_names)
    if (name == "*")
      settings.any_name = true;
    else
      settings.names.push_back(name);
  if (settings.names.empty()) settings.names.push_back(model_name_of_file(options));
  return settings;
}

// What the supervisor knows explains why nodes are missing; where others serve on, it only makes things worse.
GatewayHealth with_troubles(GatewayHealth health, const std::vector<std::string>& troubles) {
  std::vector<std::string>& into = health.ready() ? health.degraded : health.reasons;
  into.insert(into.end(), troubles.begin(), troubles.end());
  return health;
}

// Slow clients may read what was said until the drain limit; a second signal ends that as well.
void say_last_words(HttpServer& http, Drain& drain, EventFdWaker& waker) {
  if (drain.cut_short())
    return http.stop(
        "the server stopped before this was finished: its drain limit passed, or it was told to stop at once",
        std::chrono::milliseconds(500));
  const Duration grace = drain.time_left(steady_now());
  const TimePoint until = steady_now() + grace;
  http.stop("the server is shutting down", grace);
  for (TimePoint now = steady_now(); !http.gone() && now < until; now = steady_now()) {
    if (drain.told_again()) return http.hurry();
    waker.wait(static_cast<int>(milliseconds(until - now)) + 1);
    waker.drain();
  }
}

HttpConfig secured_http_config_of(const Options& options, const Secret& secret, const ServedModel& served) {
  check_exposure(options);
  HttpConfig config = http_config_of(options);
  config.tls = read_tls_identity(options);
  if (!options.public_prefix_file.empty())
    config.public_prefixes = PublicPrefixes(read_public_prefixes(options.public_prefix_file, served), secret);
  if (!options.api_key_file.empty()) config.keys = read_hashed_api_keys(options.api_key_file, secret);
  return config;
}

struct Loading {
  explicit Loading(const Options& options)  // serve's run folder; started by hand it has none
      : share(std::filesystem::path(options.status_socket).parent_path()) {}
  LoadingWatch watch;
  LoadingShare share;
};

Hello hello_of(const Options& options, const GgufFile& file, BootId boot) {
  return gateway_hello(file, model_digest_of(options, file), options.name.empty() ? "gateway" : options.name, boot);
}

}  // namespace

HttpConfig http_config_of(const Options& options) {
  HttpConfig config;
  config.connections_max = options.queue_max + GatewayConfig{}.running_max + kSpareConnections;
  config.host = options.host;
  config.port = options.port;
  config.insecure = options.insecure;
  return config;
}

int start_gateway(const Options& options) {
  std::optional<Loading> loading(options);
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  const ModelConfig model = value_or_throw(read_model_config(file));
  const std::unique_ptr<Tokenizer> tokenizer = value_or_throw(Tokenizer::from_gguf(file));
  const Secret secret = read_or_make_secret(options.secret_file);
  const ServedModel served =
      value_or_throw(ServedModel::from_gguf(file, *tokenizer, settings_of(options, model, secret)));
  const BootId boot = draw_boot_id();
  const Hello hello = hello_of(options, file, boot);
  loading.reset();  // before there are sockets
  ControlConfig control;
  control.bind_endpoint = options.gateway_endpoints.front();
  ControlChannel channel(control, hello);
  EventFdWaker waker;
  const GatewayConfig config{.queue_max = options.queue_max};
  const HttpConfig http_config = secured_http_config_of(options, secret, served);
  Mailbox<GatewayInput> inputs(2 * http_config.connections_max, waker);
  HttpServer http(http_config, served, inputs, boot);
  spdlog::info("listening http{}://{}:{} control endpoint {} model {}", http_config.tls.given() ? "s" : "",
               options.host, http.port(), options.gateway_endpoints.front(), served.name());

  Gateway gateway(config, boot);
  BoundedVector<GatewayEffect> effects(gateway.effects_max());
  FaultPoints faults(options.faults);
  Effects execute(channel, http, faults);
  TimePoint publish_at{};
  const auto carry_out = [&] {
    for (GatewayEffect& effect : effects) std::visit(execute, effect);
    effects.clear();
  };
  const auto handle = [&](GatewayEvent event, TimePoint now) {
    gateway.on(event, now, effects);
    carry_out();
  };
  const auto on_control = [&](const ControlEvent& event, TimePoint now) {
    warn_of_loss(event);
    std::visit([&](const auto& one) { handle(one, now); }, event);
    warn_of_difference(event, gateway);
  };
  TroubleSocket troubles(options.status_socket);
  Drain drain(waker, std::chrono::seconds(options.drain_timeout_s));
  ControlLoop* to_stop = nullptr;
  const auto on_wake = [&](TimePoint now) {
    if (drain.begins(now)) {
      handle(DrainRequested{}, now);
      http.drain();
      publish_at = now;
    }
    while (auto input = inputs.take()) {
      if (std::holds_alternative<RequestArrived>(*input)) faults.pass("gateway-arrived");
      std::visit([&](auto& one) { handle(std::move(one), now); }, *input);
    }
    gateway.on_deadline(now, effects);
    carry_out();
    const GatewayCounters counters = gateway.counters();
    if (drain.ends(gateway.drained(), counters.queued + counters.running, now)) to_stop->stop();
    if (now < publish_at) return;
    http.publish({with_troubles(gateway.health(now), troubles.lines()), gateway.counters(), gateway.max_model_len()});
    publish_at = now + kPublishEvery;
  };
  ControlLoop loop(channel, waker, {on_control, on_wake, [&] {
                                      return std::min({gateway.next_deadline(), publish_at, drain.next_deadline()});
                                    }});
  to_stop = &loop;
  ReadySignal(options.ready_fd).announce();
  loop.run();
  say_last_words(http, drain, waker);
  spdlog::info("stopped");
  return drain.exit_code();
}

}  // namespace spillway
