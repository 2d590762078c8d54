#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/clock.h"
#include "engine/compute_job.h"
#include "engine/executor.h"
#include "kv/block.h"
#include "simulator/synthetic_model.h"

namespace spillway {

// The compute thread in virtual time: appends a layer's rows when that layer's time is up, samples at the end of the
// step from what it reads back through the block table. One step in flight.
class SimulatedExecutor {
 public:
  struct Speed {
    Duration per_step = std::chrono::microseconds(500);
    Duration per_token = std::chrono::microseconds(20);
  };
  SimulatedExecutor(const SyntheticModel& model, const SlotArena& arena, const Speed& speed, NumericsClass numerics);
  void start(StepPlan plan, TimePoint now);                // REQUIRES: idle
  TimePoint next_event() const;                            // kNever: idle
  void stall(TimePoint until) { stalled_until_ = until; }  // nothing is done before
  // What is due at next_event(). REQUIRES: a step is in flight.
  ComputeEvent advance();

  // Of the block that was written there last: this executor's own class, kNumericsMixed where its prefix is of another,
  // or that of the node that it comes from.
  NumericsClass computed_in(SlotId slot) const { return computed_in_[static_cast<uint32_t>(slot)]; }
  void receives(std::span<const SlotId> slots, NumericsClass from) {
    for (const SlotId slot : slots) computed_in_[static_cast<uint32_t>(slot)] = from;
  }

 private:
  void note_class(const StepShare& share);
  void append_layer(uint16_t layer);
  SampledToken sample(const StepShare& share) const;
  StepDone finish();

  const SyntheticModel model_;
  const SlotArena arena_;
  const Speed speed_;
  const NumericsClass numerics_;
  std::vector<NumericsClass> computed_in_;  // by slot
  std::optional<StepPlan> plan_;
  TimePoint started_{}, stalled_until_{};
  Duration elapsed_{};
  uint16_t layers_done_ = 0;
};

}  // namespace spillway
