#pragma once

#include <sys/types.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/options.h"
#include "cli/run_directory.h"
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
  // Starts the nodes of `options` (prefill x decode) from `executable` and waits until all have joined; throws
  // SetupError naming who did not come within a minute.
  ProcessCluster(const Options& options, const std::string& executable);
  ProcessCluster(const ProcessCluster&) = delete;
  ProcessCluster& operator=(const ProcessCluster&) = delete;
  ~ProcessCluster();  // stops the nodes

  struct Generated {
    std::vector<TokenId> tokens;
    std::vector<uint64_t> logits_digests;  // one per token
    Waterfall waterfall;
  };
  // Greedy; ends after `tokens_max` tokens whatever they are.
  Result<Generated> generate(const std::vector<TokenId>& prompt, uint32_t tokens_max);
  // kill -9 of decode node `index`, then starts it again and waits until it has joined.
  void kill_and_restart_decode(uint32_t index);

 private:
  pid_t start_node(const std::string& role, uint32_t index);
  void wait_until(const std::function<bool()>& done, Duration at_most, const std::string& what);
  void turn();
  void handle(GatewayEvent event);
  void carry_out();  // what the gateway decided, before it is asked again

  const Options options_;
  const std::string executable_;
  const RunDirectory run_;
  std::vector<pid_t> prefill_pids_, decode_pids_;
  BootId boot_;
  std::unique_ptr<ControlChannel> channel_;
  Gateway gateway_;
  BoundedVector<GatewayEffect> effects_;
  uint64_t requests_ = 0;
  Generated current_;
  std::optional<Result<Waterfall>> ended_;
};

}  // namespace spillway
