#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <variant>
#include <vector>

#include "common/fault_points.h"
#include "common/mailbox.h"
#include "common/thread.h"
#include "common/waker.h"
#include "engine/compute_job.h"
#include "kernels/attention.h"
#include "kernels/backend.h"
#include "kernels/sample.h"
#include "kernels/tensor.h"
#include "kv/block.h"
#include "model/decoder.h"

namespace spillway {

using ComputeEvent = std::variant<LayerDone, StepDone>;

struct StepFault {                // passed at the begin of each step
  FaultPoints* points = nullptr;  // nullptr: none
  std::string_view name = {};
};

// The compute thread: takes StepPlans, runs the model, answers with LayerDone and StepDone in the loop's mailbox. It
// owns the calls into Backend and Decoder from construction to destruction; KV memory is `kv`, which the transfer
// thread may write only in slots that no plan names.
class Executor {
 public:
  struct Limits {
    uint32_t tokens_max = 0;               // rows of one step
    uint32_t sequences_max = 0;            // shares of one step
    uint32_t blocks_per_sequence_max = 0;  // block table entries of one share
  };
  // `events` must have room for layer_count + 1 items per step in flight. All references must outlive this. Allocates
  // the block table; throws SetupError when the backend has no memory.
  Executor(Backend& backend, Decoder& decoder, const SlotArena& kv, const Limits& limits, Mailbox<ComputeEvent>& events,
           StepFault fault = {});
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;
  ~Executor();                 // finishes the step in flight, then joins
  void submit(StepPlan plan);  // loop thread; one step in flight

 private:
  struct Command {
    enum class Kind : uint8_t { kStep, kStop };
    Kind kind = Kind::kStop;
    StepPlan plan;  // of a kStep
  };
  void run();
  StepDone execute(const StepPlan& plan);
  void lay_out(const StepPlan& plan);  // fills the block table, spans_, logit_rows_ and samples_
  void poison(const StepPlan& plan, const TensorView& logits, size_t first);
  void sample(const StepPlan& plan, TensorView logits);  // all of samples_; `logits` are the first of their rows
  static std::vector<SampledToken> sampled(const StepPlan& plan, std::span<const SampleRow> rows);
  static std::vector<ScoredTokens> scored(const StepPlan& plan, std::span<const SampleRow> rows);

  Backend& backend_;
  Decoder& decoder_;
  const SlotArena kv_;
  const Limits limits_;
  Mailbox<ComputeEvent>& events_;
  const StepFault fault_;
  TensorView block_table_;  // u32 [sequences_max, blocks_per_sequence_max]
  // Of the step at hand.
  std::vector<TokenSpan> spans_;
  std::vector<uint32_t> logit_rows_;
  std::vector<SampleRow> samples_;  // one a logit row: those that are scored, then the sampled; they look into the plan

  EventFdWaker waker_;
  Mailbox<Command> inbox_;
  Thread thread_;  // last: it runs until kStop, so all it uses must be there before and after
};

}  // namespace spillway
