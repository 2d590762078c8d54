#include "cli/start_prefill.h"

#include <algorithm>

#include "cli/child_process.h"
#include "cli/drain.h"
#include "cli/node_request_log.h"
#include "cli/node_runtime.h"
#include "common/bounded_vector.h"
#include "common/log.h"
#include "prefill_node/prefill_node.h"
#include "transfer/control_loop.h"
#include "transfer/kv_sender.h"

namespace spillway {
namespace {

// Turns what the node decided into calls on the thing that does it.
class Effects {
 public:
  Effects(NodeRuntime& runtime, ControlChannel& channel, NodeRequestLog& log)
      : runtime_(runtime), channel_(channel), log_(log) {}

  void operator()(SendMessage& effect) {
    if (std::holds_alternative<PrefillDone>(effect.message)) runtime_.faults().pass("prefill-done");
    log_.sends(effect.message);
    channel_.send(effect.to, effect.message);  // a lost peer is told by PeerGone
  }
  void operator()(ConnectPeer& effect) { channel_.connect(effect.endpoint, ControlChannel::Endpoint::kOther); }
  void operator()(ConnectBulk& effect) { runtime_.transfer().submit(std::move(effect)); }
  void operator()(DisconnectBulk& effect) { runtime_.transfer().submit(effect); }
  void operator()(SendParts& effect) {
    runtime_.faults().pass("prefill-send");
    runtime_.transfer().submit(effect);
  }
  void operator()(TransferProbe& effect) { runtime_.transfer().submit(effect); }
  void operator()(StepPlan& effect) {
    runtime_.faults().pass("prefill-step");
    StepShare* const sampled = first_sampled(effect);
    if (sampled != nullptr && runtime_.faults().spoils("prefill-nan")) sampled->poisoned = true;
    runtime_.executor().submit(std::move(effect));
  }

 private:
  NodeRuntime& runtime_;
  ControlChannel& channel_;
  NodeRequestLog& log_;
};

void pass_fault_points(FaultPoints& faults, const PrefillEvent& event) {
  if (std::holds_alternative<LayerDone>(event)) faults.pass("prefill-layer");
  if (const auto* received = std::get_if<PeerMessage>(&event))
    if (std::holds_alternative<Prefill>(received->message)) faults.pass("prefill-received");
}

}  // namespace

int start_prefill(const Options& options) {
  NodeRuntime runtime(options, Role::kPrefill);
  KvSender sender({.layer_count = runtime.model().layer_count,
                   .transfers_max = runtime.requests_max(),
                   .window = NodeRuntime::kSendWindow,
                   .sends_max = NodeRuntime::kSendsMax,
                   .layers_per_frame = kLayersPerFrame},
                  runtime.cache());
  PrefillConfig config;
  config.requests_max = runtime.requests_max();
  config.vocab = runtime.model().vocab;
  PrefillNode node(config, runtime.engine(), sender);
  ControlChannel channel({}, runtime.hello(""));
  for (const std::string& gateway : options.gateway_endpoints) channel.connect(gateway);

  BoundedVector<PrefillEffect> effects(node.effects_max());
  NodeRequestLog log(runtime.requests_max());
  Effects execute(runtime, channel, log);
  const auto carry_out = [&] {
    for (PrefillEffect& effect : effects) std::visit(execute, effect);
    effects.clear();
  };
  const auto handle = [&](const PrefillEvent& event, TimePoint now) {
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
    while (auto event = runtime.compute_events().take()) std::visit([&](auto& one) { handle(one, now); }, *event);
    while (auto event = runtime.transfer_events().take()) {
      if (auto* const sent = std::get_if<PartsSent>(&*event)) handle(*sent, now);
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
