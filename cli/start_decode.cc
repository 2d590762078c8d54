#include "cli/start_decode.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "cli/child_process.h"
#include "cli/drain.h"
#include "cli/node_request_log.h"
#include "cli/node_runtime.h"
#include "common/bounded_vector.h"
#include "common/log.h"
#include "decode_node/decode_node.h"
#include "transfer/control_loop.h"
#include "transfer/kv_receiver.h"

namespace spillway {
namespace {

// Turns what the node decided into calls on the thing that does it.
class Effects {
 public:
  Effects(NodeRuntime& runtime, ControlChannel& channel, NodeRequestLog& log)
      : runtime_(runtime), channel_(channel), log_(log) {}

  void operator()(SendMessage& effect) {
    if (std::holds_alternative<Committed>(effect.message)) runtime_.faults().pass("decode-commit");
    if (std::holds_alternative<Token>(effect.message)) runtime_.faults().pass("decode-token");
    log_.sends(effect.message);
    channel_.send(effect.to, effect.message);  // a lost peer is told by PeerGone
  }
  void operator()(ConnectBulk& effect) { runtime_.transfer().submit(std::move(effect)); }
  void operator()(DisconnectBulk& effect) { runtime_.transfer().submit(effect); }
  void operator()(OpenTransfer& effect) { runtime_.transfer().submit(std::move(effect)); }
  void operator()(CloseTransfer& effect) { runtime_.transfer().submit(effect); }
  void operator()(TransferProbe& effect) { runtime_.transfer().submit(effect); }
  void operator()(StepPlan& effect) {
    runtime_.faults().pass("decode-step");
    StepShare* const sampled = first_sampled(effect);
    if (sampled != nullptr && runtime_.faults().spoils("decode-nan")) sampled->poisoned = true;
    runtime_.executor().submit(std::move(effect));
  }

 private:
  NodeRuntime& runtime_;
  ControlChannel& channel_;
  NodeRequestLog& log_;
};

void pass_fault_points(FaultPoints& faults, const DecodeEvent& event) {
  if (std::holds_alternative<PartsLanded>(event)) faults.pass("decode-landed");
  if (const auto* received = std::get_if<PeerMessage>(&event))
    if (std::holds_alternative<Reserve>(received->message)) faults.pass("decode-reserved");
}

}  // namespace

int start_decode(const Options& options) {
  NodeRuntime runtime(options, Role::kDecode);
  KvReceiver receiver({runtime.model().layer_count, runtime.transfers_max()}, runtime.cache());
  DecodeConfig config;
  config.requests_max = runtime.requests_max();
  config.boot = runtime.boot();
  config.colocates = options.colocate;
  config.vocab = runtime.model().vocab;
  DecodeNode node(config, runtime.engine(), receiver);
  ControlConfig control;
  // Named after the node where it has a name: its successor takes the same place, and nobody dials dead ones for ever.
  std::string place = options.name.empty() ? fmt::format("decode-{}", ::getpid()) : options.name;
  std::replace_if(
      place.begin(), place.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '-');
  control.bind_endpoint = fmt::format("ipc://{}/{}.sock", options.run_dir, place);
  ControlChannel channel(control, runtime.hello(control.bind_endpoint));
  for (const std::string& gateway : options.gateway_endpoints) channel.connect(gateway);

  BoundedVector<DecodeEffect> effects(node.effects_max());
  NodeRequestLog log(runtime.requests_max());
  Effects execute(runtime, channel, log);
  const auto carry_out = [&] {
    for (DecodeEffect& effect : effects) std::visit(execute, effect);
    effects.clear();
  };
  const auto handle = [&](const DecodeEvent& event, TimePoint now) {
    pass_fault_points(runtime.faults(), event);
    if (const auto* const received = std::get_if<PeerMessage>(&event)) {
      log.forget_ended([&](RequestId request) { return node.holds(request); });
      log.received(received->message);
    }
    node.on(event, now, effects);
    carry_out();
  };
  ReadySignal ready_signal(options.ready_fd);
  const auto on_control = [&](const ControlEvent& event, TimePoint now) {
    if (std::holds_alternative<PeerUp>(event)) ready_signal.announce();  // a gateway is the first, and it took us
    std::visit([&](const auto& one) { handle(one, now); }, event);
  };
  Drain drain(runtime.waker(), std::chrono::seconds(options.drain_timeout_s));
  ControlLoop* to_stop = nullptr;
  const auto on_wake = [&](TimePoint now) {
    if (drain.begins(now)) handle(DrainRequested{}, now);
    while (auto event = runtime.compute_events().take()) std::visit([&](const auto& one) { handle(one, now); }, *event);
    while (auto event = runtime.transfer_events().take()) {
      if (auto* const landed = std::get_if<PartsLanded>(&*event)) handle(*landed, now);
      if (auto* const closed = std::get_if<TransferClosed>(&*event)) handle(*closed, now);
      if (auto* const alive = std::get_if<TransferAlive>(&*event)) handle(*alive, now);
      if (auto* const ready = std::get_if<BulkReady>(&*event)) handle(*ready, now);
      if (auto* const lost = std::get_if<BulkLost>(&*event)) handle(*lost, now);
    }
    node.on_deadline(now, effects);
    carry_out();
    if (drain.ends(node.drained(), node.requests(), now)) to_stop->stop();
  };
  ControlLoop loop(channel, runtime.waker(),
                   {on_control, on_wake, [&] { return std::min(node.next_deadline(), drain.next_deadline()); }});
  to_stop = &loop;
  runtime.run(loop, [&] { return node.requests() > 0; });
  spdlog::info("stopped requests={}", node.requests());
  // A step that hangs is waited for by nobody.
  if (drain.cut_short() || runtime.engine().step_in_flight() != nullptr) leave_now(drain.exit_code());
  return drain.exit_code();
}

}  // namespace spillway
