#include "cli/process_cluster.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdio>
#include <utility>

#include "cli/child_process.h"
#include "cli/process_identity.h"
#include "cli/value_or_throw.h"
#include "common/check.h"

namespace spillway {
namespace {

constexpr size_t kEventsPerTurn = 256;
constexpr int kPollMs = 20;
constexpr Duration kStartMax = std::chrono::seconds(60);
constexpr Duration kRequestMax = std::chrono::seconds(300);

}  // namespace

ProcessCluster::ProcessCluster(const Options& options, const std::string& executable)
    : options_(options),
      executable_(executable),
      boot_(draw_boot_id()),
      gateway_(GatewayConfig{}, boot_),
      effects_(gateway_.effects_max()) {
  const GgufFile file = value_or_throw(GgufFile::open(options.model));
  weights_ = share_weights(options);
  ControlConfig control;
  control.bind_endpoint = run_.gateway_endpoint();
  const Hello hello = gateway_hello(file, weights_.model_digest, "verify", boot_);
  block_tokens_ = hello.block_tokens;
  channel_ = std::make_unique<ControlChannel>(control, hello);
  fmt::print(stderr, "starting {} prefill and {} decode nodes\n", options.prefill, options.decode);
  try {
    for (uint32_t index = 0; index < options.prefill; ++index) prefill_pids_.push_back(start_node("prefill", index));
    for (uint32_t index = 0; index < options.decode; ++index) decode_pids_.push_back(start_node("decode", index));
    wait_joined();
  } catch (...) {
    stop_nodes();
    throw;
  }
}

ProcessCluster::~ProcessCluster() { stop_nodes(); }

void ProcessCluster::stop_nodes() {
  channel_.reset();  // a node that drains waits for its gateway, or for it to be gone
  std::vector<pid_t> pids = std::exchange(prefill_pids_, {});
  pids.insert(pids.end(), decode_pids_.begin(), decode_pids_.end());
  decode_pids_.clear();
  stop_children(pids, 3000);
}

void ProcessCluster::wait_joined() {
  wait_until(
      [&] {
        throw_if_ended(prefill_pids_, "prefill");
        throw_if_ended(decode_pids_, "decode");
        const GatewayCounters counters = gateway_.counters();
        return counters.prefill_nodes == options_.prefill && counters.decode_nodes == options_.decode;
      },
      kStartMax, "all nodes to join");
}

void ProcessCluster::throw_if_ended(std::vector<pid_t>& pids, const char* role) {
  for (size_t index = 0; index < pids.size(); ++index) {
    int status = 0;
    if (pids[index] < 0 || ::waitpid(pids[index], &status, WNOHANG) != pids[index]) continue;
    pids[index] = -1;
    throw SetupError(fmt::format("{} {} {} before it joined", role, index, how_it_ended(status)));
  }
}

pid_t ProcessCluster::start_node(const std::string& role, uint32_t index) {
  return spawn_child(executable_, node_arguments(options_, role, index, run_), {.packed = weights_.packed.get()});
}

void ProcessCluster::turn() {
  if (stop_.seen()) throw SetupError("interrupted");
  std::vector<ControlEvent> events;
  channel_->receive(steady_now(), events, kEventsPerTurn);
  const bool idle = events.empty();
  for (ControlEvent& event : events) {
    note_sender(event);
    std::visit([&](auto& one) { handle(std::move(one)); }, event);
  }
  gateway_.on_deadline(steady_now(), effects_);
  carry_out();
  if (!idle) return;
  std::vector<pollfd> entries;
  for (const int fd : channel_->fds()) entries.push_back({fd, POLLIN, 0});
  ::poll(entries.data(), entries.size(), kPollMs);
}

void ProcessCluster::note_sender(const ControlEvent& event) {
  const auto* const received = std::get_if<PeerMessage>(&event);
  const auto* const token = received == nullptr ? nullptr : std::get_if<Token>(&received->message);
  if (token == nullptr) return;
  if (const auto found = open_.find(token->attempt.request); found != open_.end())
    found->second.generated.nodes.insert(received->peer);
}

void ProcessCluster::handle(GatewayEvent event) {
  gateway_.on(event, steady_now(), effects_);
  carry_out();
}

void ProcessCluster::carry_out() {
  for (GatewayEffect& effect : effects_) {
    if (auto* const message = std::get_if<SendMessage>(&effect)) channel_->send(message->to, message->message);
    if (auto* const token = std::get_if<StreamToken>(&effect)) {
      Generated& generated = open_.at(token->request).generated;
      generated.tokens.push_back(token->token);
      generated.logits_digests.push_back(token->logits_digest);
    }
    if (auto* const end = std::get_if<StreamEnd>(&effect)) open_.at(end->request).ended = end->waterfall;
    if (auto* const error = std::get_if<StreamError>(&effect))
      open_.at(error->request).ended = tl::unexpected<Error>(error->error);
  }
  effects_.clear();
}

void ProcessCluster::wait_until(const std::function<bool()>& done, Duration at_most, const std::string& what) {
  const TimePoint deadline = steady_now() + at_most;
  while (!done()) {
    if (steady_now() > deadline) throw SetupError(fmt::format("waited {:.0f} s for {}", seconds(at_most), what));
    turn();
  }
}

void ProcessCluster::wait_idle() {
  const auto idle = [&] {
    const GatewayCounters counters = gateway_.counters();
    return counters.blocks_free == counters.blocks_total;
  };
  wait_until(idle, kStartMax, "all nodes to be idle");
}

PreemptionCounts ProcessCluster::preemption_counts() {
  wait_idle();
  return gateway_.counters().preemption;
}

std::vector<Result<ProcessCluster::Generated>> ProcessCluster::generate(const std::vector<TokenId>& prompt,
                                                                        uint32_t tokens_max, uint32_t copies) {
  wait_idle();  // what nodes last said of an earlier request would place this one otherwise
  open_.clear();
  for (uint32_t copy = 0; copy < copies; ++copy) {
    GenerateRequest work;
    work.request = {boot_, ++requests_};
    work.prompt = prompt;
    work.output_tokens_max = tokens_max;
    work.digest_logits = true;
    open_[work.request];
    handle(RequestArrived{std::move(work)});
  }
  const auto ended = [](const auto& entry) { return entry.second.ended.has_value(); };
  wait_until([&] { return std::all_of(open_.begin(), open_.end(), ended); }, kRequestMax, "an answer");
  std::vector<Result<Generated>> all;
  for (auto& [request, open] : open_)
    all.push_back(open.ended->map([&](const Waterfall& waterfall) {
      open.generated.waterfall = waterfall;
      return std::move(open.generated);
    }));
  return all;
}

void ProcessCluster::kill_and_restart_decode(uint32_t index) {
  CHECK(index < decode_pids_.size());
  ::kill(decode_pids_[index], SIGKILL);
  ::waitpid(decode_pids_[index], nullptr, 0);
  decode_pids_[index] = -1;
  wait_until([&] { return gateway_.counters().decode_nodes == options_.decode - 1; }, kStartMax,
             "the loss to be noticed");
  decode_pids_[index] = start_node("decode", index);
  wait_joined();
}

}  // namespace spillway
