#include "simulator/simulated_process.h"

#include <fmt/format.h>

#include <algorithm>
#include <concepts>
#include <utility>

#include "common/check.h"
#include "decode_node/decode_node.h"
#include "prefill_node/prefill_node.h"
#include "transfer/kv_receiver.h"
#include "transfer/kv_sender.h"

namespace spillway {
namespace {

template <class One, class Variant>
struct IsAlternative;
template <class One, class... All>
struct IsAlternative<One, std::variant<All...>> : std::bool_constant<(std::same_as<One, All> || ...)> {};

constexpr uint32_t kSendWindows = 4;  // full windows in flight

SlotArena arena_over(std::vector<std::byte>& memory, const KvLayout& layout, uint32_t slots) {
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  return {memory.data() + (kPageBytes - address % kPageBytes) % kPageBytes, 0, layout, slots};
}

std::string named(const char* what, size_t count) { return count == 0 ? "" : fmt::format(" {} {}", count, what); }

class GatewayProcess final : public SimulatedProcess {
 public:
  GatewayProcess(const GatewayConfig& config, BootId boot) : core_(config, boot), core_effects_(core_.effects_max()) {}
  void on_control(const ControlEvent& event, TimePoint now) override {
    std::visit([&](const auto& one) { handle(one, now); }, event);
  }
  void on_client(const GatewayEvent& event, TimePoint now) override { handle(event, now); }
  void on_deadline(TimePoint now) override {
    core_.on_deadline(now, core_effects_);
    take();
  }
  TimePoint next_deadline() const override { return core_.next_deadline(); }
  void check_conservation() const override { core_.check_conservation(); }
  std::string leftovers() const override {
    const GatewayCounters counters = core_.counters();
    return named("queued", counters.queued) + named("running", counters.running);
  }
  void on_compute(const ComputeEvent&, TimePoint) override { CHECK(false); }
  void on_transfer(const TransferEvent&, TimePoint) override { CHECK(false); }
  void on_drain(TimePoint) override { CHECK(false); }
  bool drained() const override { return false; }
  NodeParts* parts() override { return nullptr; }

 private:
  void handle(const GatewayEvent& event, TimePoint now) {
    core_.on(event, now, core_effects_);
    take();
  }
  void take() {
    for (GatewayEffect& effect : core_effects_) {
      std::visit([this](auto& one) { effects_.emplace_back(std::move(one)); }, effect);
    }
    core_effects_.clear();
  }
  Gateway core_;
  BoundedVector<GatewayEffect> core_effects_;
};

// `Core` is PrefillNode or DecodeNode, `Mover` its KvSender or KvReceiver.
template <class Core, class Mover, class Event, class Effect>
class NodeProcess final : public SimulatedProcess {
 public:
  template <class CoreConfig>
  NodeProcess(const SimulatedNodeConfig& config, const CoreConfig& core, const typename Mover::Config& mover,
              bool announce_layers, std::unique_ptr<KvTransport> transport)
      : parts_(config, announce_layers, std::move(transport)),
        mover_(mover, parts_.cache),
        core_(core, parts_.engine, mover_),
        core_effects_(core_.effects_max()) {}

  void on_control(const ControlEvent& event, TimePoint now) override { feed(event, now); }
  void on_compute(const ComputeEvent& event, TimePoint now) override { feed(event, now); }
  void on_transfer(const TransferEvent& event, TimePoint now) override { feed(event, now); }
  void on_client(const GatewayEvent&, TimePoint) override { CHECK(false); }
  void on_drain(TimePoint now) override {
    core_.on(DrainRequested{}, now, core_effects_);
    take();
  }
  bool drained() const override { return core_.drained(); }
  void on_deadline(TimePoint now) override {
    core_.on_deadline(now, core_effects_);
    take();
  }
  TimePoint next_deadline() const override { return core_.next_deadline(); }
  void check_conservation() const override { core_.check_conservation(); }
  std::string leftovers() const override {
    const KvCacheCounts counts = parts_.cache.counts();
    std::string text = named("requests", core_.requests()) + named("sequences", parts_.engine.open_sequences()) +
                       named("transfers", mover_.open_transfers()) + named("held slots", counts.held) +
                       named("slots neither free nor cached", counts.slots - counts.free - counts.cached);
    if constexpr (requires { mover_.sends_in_flight(); }) text += named("sends in flight", mover_.sends_in_flight());
    return text;
  }
  NodeParts* parts() override { return &parts_; }

 private:
  template <class Given>
  void feed(const Given& event, TimePoint now) {
    std::visit(
        [&](const auto& one) {
          if constexpr (IsAlternative<std::decay_t<decltype(one)>, Event>::value) core_.on(one, now, core_effects_);
        },
        event);
    take();
  }
  void take() {
    for (Effect& effect : core_effects_) {
      std::visit(
          [this](auto& one) {
            if constexpr (IsAlternative<std::decay_t<decltype(one)>, TransferJob>::value) {
              effects_.emplace_back(TransferJob(std::move(one)));
            } else {
              effects_.emplace_back(std::move(one));
            }
          },
          effect);
    }
    core_effects_.clear();
  }

  NodeParts parts_;
  Mover mover_;
  Core core_;
  BoundedVector<Effect> core_effects_;
};

using PrefillProcess = NodeProcess<PrefillNode, KvSender, PrefillEvent, PrefillEffect>;
using DecodeProcess = NodeProcess<DecodeNode, KvReceiver, DecodeEvent, DecodeEffect>;

}  // namespace

NodeParts::NodeParts(const SimulatedNodeConfig& config, bool announce_layers, std::unique_ptr<KvTransport> transport)
    : memory(config.model.layout.block_bytes() * config.slots + kPageBytes),
      arena(arena_over(memory, config.model.layout, config.slots)),
      cache({config.model.layout, ModelId{}, config.encoding(), config.slots}),
      engine({config.limits, config.max_model_len, announce_layers, SyntheticModel::kVocab, config.growth_margin},
             cache),
      executor(config.model, arena, config.speed, config.numerics),
      worker(std::move(transport), arena, {8 * config.requests_max, 4096}) {}

std::unique_ptr<SimulatedProcess> make_simulated_gateway(const GatewayConfig& config, BootId boot) {
  return std::make_unique<GatewayProcess>(config, boot);
}

std::unique_ptr<SimulatedProcess> make_simulated_prefill(const SimulatedNodeConfig& config,
                                                         std::unique_ptr<KvTransport> transport) {
  PrefillConfig core;
  core.requests_max = config.requests_max;
  core.lease = config.lease;
  core.hold_max = config.hold_max;
  core.vocab = SyntheticModel::kVocab;
  const KvSender::Config sender{.layer_count = config.model.layout.layer_count,
                                .transfers_max = config.requests_max,
                                .window = config.send_window,
                                .sends_max = kSendWindows * config.send_window,
                                .layers_per_frame = config.layers_per_frame};
  return std::make_unique<PrefillProcess>(config, core, sender, true, std::move(transport));
}

std::unique_ptr<SimulatedProcess> make_simulated_decode(const SimulatedNodeConfig& config, BootId boot,
                                                        std::unique_ptr<KvTransport> transport) {
  DecodeConfig core;
  core.boot = boot;
  core.colocates = config.colocates;
  core.requests_max = config.requests_max;
  core.lease = config.lease;
  core.vocab = SyntheticModel::kVocab;
  const KvReceiver::Config receiver{config.model.layout.layer_count,
                                    std::min(config.transfers_max, 2 * config.requests_max)};
  return std::make_unique<DecodeProcess>(config, core, receiver, false, std::move(transport));
}

}  // namespace spillway
