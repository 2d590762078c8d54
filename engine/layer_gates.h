#pragma once

#include <cstdint>

#include "common/mailbox.h"
#include "engine/executor.h"
#include "kernels/backend.h"
#include "model/layer_gate.h"

namespace spillway {

// Announces each layer of one step to the loop as soon as its K and V lie in their slots, so that they can leave while
// the next layer computes. Compute thread; one per step.
class AnnouncingGate final : public LayerGate {
 public:
  AnnouncingGate(StepId step, Backend& backend, Mailbox<ComputeEvent>& events)
      : step_(step), backend_(backend), events_(events) {}
  void after_append(uint16_t layer) override;
  [[nodiscard]] bool before_attention(uint16_t) override { return true; }

 private:
  const StepId step_;
  Backend& backend_;
  Mailbox<ComputeEvent>& events_;
};

}  // namespace spillway
