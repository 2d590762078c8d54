#pragma once

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/packed_model.h"
#include "cli/run_directory.h"
#include "cli/stop_signal.h"
#include "common/bounded_vector.h"
#include "common/ids.h"
#include "common/result.h"
#include "gateway/gateway.h"
#include "transfer/control_channel.h"

namespace spillway {

// Real prefill and decode processes with the gateway's core in this one, without HTTP: `verify` and the tests send
// requests through it and may kill nodes. One thread; every wait has a deadline.
class ProcessCluster {
 public:
  // Starts the nodes of `options` (prefill x decode; no prefill: colocated) from `executable` and waits until all have
  // joined. Throws SetupError, here and below: a node ended, something took too long, or SIGINT or SIGTERM came.
  ProcessCluster(const Options& options, const std::string& executable);
  ProcessCluster(const ProcessCluster&) = delete;
  ProcessCluster& operator=(const ProcessCluster&) = delete;
  ~ProcessCluster();  // stops the nodes

  struct Generated {
    std::vector<TokenId> tokens;
    std::vector<uint64_t> logits_digests;  // one per token
    Waterfall waterfall;
    std::set<PeerId> nodes;  // that sent a token
  };
  // Once all nodes are idle, `copies` equal requests at the same moment, which spread over them. Greedy; each ends
  // after `tokens_max` tokens whatever they are.
  std::vector<Result<Generated>> generate(const std::vector<TokenId>& prompt, uint32_t tokens_max, uint32_t copies);
  uint32_t block_tokens() const { return block_tokens_; }
  PreemptionCounts preemption_counts();  // of all nodes, once they are idle
  // kill -9 of decode node `index`, then starts it again and waits until it has joined.
  void kill_and_restart_decode(uint32_t index);

 private:
  struct Open {
    Generated generated;
    std::optional<Result<Waterfall>> ended;
  };
  pid_t start_node(const std::string& role, uint32_t index);
  void stop_nodes();
  void wait_joined();
  void wait_idle();
  void throw_if_ended(std::vector<pid_t>& pids, const char* role);
  void wait_until(const std::function<bool()>& done, Duration at_most, const std::string& what);
  void turn();
  void note_sender(const ControlEvent& event);
  void handle(GatewayEvent event);
  void carry_out();  // what the gateway decided, before it is asked again

  const NotedStopSignal stop_;  // instead of dying of it, which would leave the run folder behind
  const Options options_;
  const std::string executable_;
  const RunDirectory run_;
  SharedWeights weights_;
  std::vector<pid_t> prefill_pids_, decode_pids_;
  uint32_t block_tokens_ = 0;
  BootId boot_;
  std::unique_ptr<ControlChannel> channel_;
  Gateway gateway_;
  BoundedVector<GatewayEffect> effects_;
  uint64_t requests_ = 0;
  std::map<RequestId, Open> open_;
};

}  // namespace spillway
