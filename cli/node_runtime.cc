#include "cli/node_runtime.h"

#include <algorithm>

#include "cli/drain.h"
#include "cli/exit_codes.h"
#include "cli/local_model.h"
#include "cli/memory_plan.h"
#include "cli/packed_model.h"
#include "cli/precision.h"
#include "cli/process_identity.h"
#include "cli/value_or_throw.h"
#include "common/check.h"
#include "common/log.h"
#include "kernels/make_backend.h"
#include "model/canary.h"
#include "model/measure_step_threads.h"
#include "transfer/kv_sender.h"
#include "transfer/shm_transport.h"

namespace spillway {
namespace {

constexpr uint32_t kTransferJobsMax = 4096;

// What TransferThread may have answered before the loop looks: each job once, each link twice more, and every part of
// every slot, since a part lands once and the loop may be late.
size_t transfer_events_max(const Options& options, const ModelConfig& model) {
  const KvLayout layout = model.kv_layout(precision_of(options).kv);
  const size_t parts = size_t{KvMemory::slots_in(layout, options.device_memory)} * model.layer_count;
  return kTransferJobsMax + 2u * kPeersMax + parts;
}

uint32_t rows_max(const Options& options) { return options.chunk_tokens + options.max_sequences; }

// What would else be found only after all the loading.
const Options& checked(const Options& options) {
  use_socket_directory(options.run_dir);
  return options;
}

}  // namespace

NodeRuntime::NodeRuntime(const Options& options, Role role)
    : options_(checked(options)),
      role_(role),
      loading_share_(options.run_dir),
      boot_(draw_boot_id()),
      faults_(options.faults),
      file_(value_or_throw(GgufFile::open(options.model))),
      model_(value_or_throw(read_model_config(file_))),
      model_len_(effective_model_len(options, model_)),
      backend_(make_backend({.isa = options.isa,
                             .threads = options.threads > 0 ? options.threads : options.threads_max,
                             .cpus = cpus_of(options),
                             .precision = precision_of(options)})),
      packed_(packed_weights_of(options, file_, model_, *backend_)),
      model_id_(compute_model_id(packed_.model_digest(), model_, model_.kv_layout().block_tokens)),
      weights_(value_or_throw(load_weights(file_, model_, *backend_, packed_.matrices()))),
      compute_events_(model_.layer_count + 2u, waker_),
      transfer_events_(transfer_events_max(options, model_), waker_) {
  const KvLayout layout = model_.kv_layout(precision_of(options).kv);
  const size_t ring_bytes = ring_bytes_for(frame_bytes_max(layout));
  spdlog::info("memory: {}, and {} for each peer",
               plan_memory({model_, weights_.packed_bytes()}, rows_max(options), options.max_sequences, model_len_,
                           options.device_memory)
                   .one_line(),
               human_bytes(ring_bytes));
  memory_ = std::make_unique<KvMemory>(*backend_, layout, options.device_memory);
  decoder_ = std::make_unique<Decoder>(*backend_, model_, weights_, rows_max(options), options.max_sequences,
                                       std::max(model_len_, kCanaryTokens));
  canary_ = compute_canary(*backend_, *decoder_, memory_->arena());
  loading_share_.reset();
  if (backend_->threads() > 1 && options.threads == 0) {  // with one there is nothing to wait for
    const CalibrationTurn turn(options.run_dir);
    if (!turn.came())
      spdlog::info("no turn to measure threads alone: others of this run load or measure meanwhile, perhaps");
    decoder_->use_step_threads(measure_step_threads(*backend_, *decoder_, memory_->arena()));
  }
  spdlog::info("threads of a step: {}", decoder_->step_threads().text());
  file_.release(file_.bytes());
  loading_.reset();  // before there are sockets
  const BlockEncoding encoding{BlockEncoding::Order::kCpuTiled, layout.dtype, backend_->numerics()};
  cache_ = std::make_unique<KvCache>(KvCacheConfig{layout, model_id_, encoding, memory_->arena().slot_count});
  const BatchLimits limits{rows_max(options), options.chunk_tokens, options.max_sequences};
  engine_ = std::make_unique<Engine>(
      EngineConfig{limits, model_len_, role == Role::kPrefill, model_.vocab, growth_margin()}, *cache_);

  std::unique_ptr<KvTransport> transport =
      make_shm_transport({options.run_dir, kPeersMax, ring_bytes, frame_bytes_max(layout)});
  bulk_endpoint_.assign(transport->endpoint().begin(), transport->endpoint().end());
  executor_ = std::make_unique<Executor>(
      *backend_, *decoder_, memory_->arena(),
      Executor::Limits{rows_max(options), options.max_sequences, layout.blocks_for(model_len_)}, compute_events_,
      StepFault{&faults_, role == Role::kPrefill ? "prefill-compute" : "decode-compute"});
  transfer_ = std::make_unique<TransferThread>(
      std::move(transport), memory_->arena(), TransferThread::Limits{transfers_max(), kTransferJobsMax},
      transfer_events_, TransferFault{&faults_, role == Role::kPrefill ? "prefill-transfer" : "decode-transfer"});
  spdlog::info("ready backend={} numerics={} canary={:016x} blocks={} max_model_len={}", backend_->name(),
               static_cast<unsigned>(backend_->numerics()), canary_, memory_->arena().slot_count, model_len_);
}

void NodeRuntime::run(ControlLoop& loop, const std::function<bool()>& busy) {
  try {
    loop.run();
  } catch (const SetupError& error) {
    if (engine_->step_in_flight() == nullptr && !busy()) throw;
    say_fatal(error.what());
    leave_now(kExitCannotStart);
  }
}

Hello NodeRuntime::hello(const std::string& control_endpoint) const {
  Hello hello;
  hello.role = role_;
  hello.boot = boot_;
  hello.name = options_.name.empty() ? std::string(role_name(role_)) : options_.name;
  hello.model = model_id_;
  hello.encoding = cache_->config().encoding;
  hello.control_endpoint = control_endpoint;
  hello.bulk_endpoint = bulk_endpoint_;
  hello.blocks_total = cache_->config().slot_count;
  hello.sequences_max = options_.max_sequences;
  hello.max_model_len = model_len_;
  hello.block_tokens = cache_->config().layout.block_tokens;
  hello.canary = canary_;
  hello.step_tokens = rows_max(options_);
  hello.growth_margin = growth_margin();
  hello.colocates = role_ == Role::kDecode && options_.colocate;
  return hello;
}

// A transfer outlives its request until TransferClosed came back.
uint32_t NodeRuntime::transfers_max() const { return 2 * requests_max(); }

// A prefill node holds no output.
uint32_t NodeRuntime::growth_margin() const { return role_ == Role::kDecode ? options_.growth_margin : 0; }

uint32_t NodeRuntime::requests_max() const { return 2 * options_.max_sequences; }

}  // namespace spillway
