#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cli/calibration_turn.h"
#include "cli/loading_watch.h"
#include "cli/options.h"
#include "common/fault_points.h"
#include "common/mailbox.h"
#include "engine/engine.h"
#include "engine/executor.h"
#include "engine/kv_memory.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "kv/kv_cache.h"
#include "model/decoder.h"
#include "model/model_config.h"
#include "model/packed_weights.h"
#include "model/weights.h"
#include "transfer/control_channel.h"
#include "transfer/control_loop.h"
#include "transfer/transfer_thread.h"

namespace spillway {

// Everything that a prefill and a decode process have in common, built in order by the composition root and destroyed
// in reverse: model, backend, KV memory, ledger, engine, and the compute and transfer threads with their mailboxes.
class NodeRuntime {
 public:
  // Throws SetupError when the model cannot be read or memory does not suffice. Takes seconds to minutes, in which the
  // process ends at SIGTERM and SIGINT (LoadingWatch).
  NodeRuntime(const Options& options, Role role);
  NodeRuntime(const NodeRuntime&) = delete;
  NodeRuntime& operator=(const NodeRuntime&) = delete;

  // Runs `loop` to its end. Where all gateways refuse this process it throws SetupError as the loop does, or, if a step
  // is in flight or `busy` (a thread may hang, and is waited for by nobody), says why and leaves with the same exit
  // code.
  void run(ControlLoop& loop, const std::function<bool()>& busy);
  // The Hello of this process; `control_endpoint` is where it accepts connections, or empty.
  Hello hello(const std::string& control_endpoint) const;
  BootId boot() const { return boot_; }
  uint32_t transfers_max() const;  // open or still closing: the node core and the transfer thread must agree
  uint32_t growth_margin() const;  // EngineConfig's
  uint32_t requests_max() const;   // attempts that the node core holds at once, those that are ending included

  const ModelConfig& model() const { return model_; }
  Engine& engine() { return *engine_; }
  KvCache& cache() { return *cache_; }
  Executor& executor() { return *executor_; }
  TransferThread& transfer() { return *transfer_; }
  Mailbox<ComputeEvent>& compute_events() { return compute_events_; }
  Mailbox<TransferEvent>& transfer_events() { return transfer_events_; }
  EventFdWaker& waker() { return waker_; }
  FaultPoints& faults() { return faults_; }

  static constexpr uint32_t kSendWindow = 64;  // SendParts in flight to one peer
  static constexpr uint32_t kSendsMax = 1024;  // SendParts in flight to all; leaves room among the transfer jobs

 private:
  const Options options_;
  const Role role_;
  std::optional<LoadingWatch> loading_{std::in_place};  // until all that takes time is done
  std::optional<LoadingShare> loading_share_;           // until the threads are measured
  const BootId boot_;
  FaultPoints faults_;
  GgufFile file_;
  ModelConfig model_;
  uint32_t model_len_;
  std::unique_ptr<Backend> backend_;
  PackedWeights packed_;
  ModelId model_id_;
  Weights weights_;
  std::unique_ptr<KvMemory> memory_;
  std::unique_ptr<Decoder> decoder_;
  uint64_t canary_ = 0;
  std::unique_ptr<KvCache> cache_;
  std::unique_ptr<Engine> engine_;
  EventFdWaker waker_;
  Mailbox<ComputeEvent> compute_events_;
  Mailbox<TransferEvent> transfer_events_;
  std::vector<std::byte> bulk_endpoint_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<TransferThread> transfer_;
};

}  // namespace spillway
