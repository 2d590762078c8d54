#include "cli/process_cluster.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>

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
  ControlConfig control;
  control.bind_endpoint = run_.gateway_endpoint();
  channel_ = std::make_unique<ControlChannel>(control, gateway_hello(file, "verify", boot_));
  for (uint32_t index = 0; index < options.prefill; ++index) prefill_pids_.push_back(start_node("prefill", index));
  for (uint32_t index = 0; index < options.decode; ++index) decode_pids_.push_back(start_node("decode", index));
  wait_until(
      [&] {
        const GatewayCounters counters = gateway_.counters();
        return counters.prefill_nodes == options_.prefill && counters.decode_nodes == options_.decode;
      },
      kStartMax, "all nodes to join");
}

ProcessCluster::~ProcessCluster() {
  std::vector<pid_t> pids = prefill_pids_;
  pids.insert(pids.end(), decode_pids_.begin(), decode_pids_.end());
  stop_children(pids, 3000);
}

pid_t ProcessCluster::start_node(const std::string& role, uint32_t index) {
  return spawn_child(executable_, node_arguments(options_, role, index, run_));
}

void ProcessCluster::turn() {
  std::vector<ControlEvent> events;
  channel_->receive(steady_now(), events, kEventsPerTurn);
  const bool idle = events.empty();
  for (ControlEvent& event : events) std::visit([&](auto& one) { handle(std::move(one)); }, event);
  gateway_.on_deadline(steady_now(), effects_);
  carry_out();
  if (!idle) return;
  std::vector<pollfd> entries;
  for (const int fd : channel_->fds()) entries.push_back({fd, POLLIN, 0});
  ::poll(entries.data(), entries.size(), kPollMs);
}

void ProcessCluster::handle(GatewayEvent event) {
  gateway_.on(event, steady_now(), effects_);
  carry_out();
}

void ProcessCluster::carry_out() {
  for (GatewayEffect& effect : effects_) {
    if (auto* const message = std::get_if<SendMessage>(&effect)) channel_->send(message->to, message->message);
    if (auto* const token = std::get_if<StreamToken>(&effect)) {
      current_.tokens.push_back(token->token);
      current_.logits_digests.push_back(token->logits_digest);
    }
    if (auto* const end = std::get_if<StreamEnd>(&effect)) ended_ = end->waterfall;
    if (auto* const error = std::get_if<StreamError>(&effect)) ended_ = tl::unexpected<Error>(error->error);
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

Result<ProcessCluster::Generated> ProcessCluster::generate(const std::vector<TokenId>& prompt, uint32_t tokens_max) {
  current_ = {};
  ended_.reset();
  GenerateRequest work;
  work.request = {boot_, ++requests_};
  work.prompt = prompt;
  work.output_tokens_max = tokens_max;
  work.digest_logits = true;
  handle(RequestArrived{std::move(work)});
  wait_until([&] { return ended_.has_value(); }, kRequestMax, "an answer");
  if (!*ended_) return tl::unexpected<Error>(ended_->error());
  current_.waterfall = **ended_;
  return current_;
}

void ProcessCluster::kill_and_restart_decode(uint32_t index) {
  CHECK(index < decode_pids_.size());
  ::kill(decode_pids_[index], SIGKILL);
  ::waitpid(decode_pids_[index], nullptr, 0);
  decode_pids_[index] = -1;
  wait_until([&] { return gateway_.counters().decode_nodes == options_.decode - 1; }, kStartMax,
             "the loss to be noticed");
  decode_pids_[index] = start_node("decode", index);
  wait_until([&] { return gateway_.counters().decode_nodes == options_.decode; }, kStartMax, "the node to join again");
}

}  // namespace spillway
