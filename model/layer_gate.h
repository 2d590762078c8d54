#pragma once

#include <cstdint>

namespace spillway {

// All that the forward pass tells, or is told, of KV leaving and entering. Compute thread.
class LayerGate {
 public:
  virtual void after_append(uint16_t layer) = 0;  // this layer's new K and V are enqueued: record, announce
  // Orders compute after every KV part this layer reads; may sleep until the step's deadline. false: a block proved bad
  // or late, and forward() returns nothing.
  [[nodiscard]] virtual bool before_attention(uint16_t layer) = 0;

 protected:
  ~LayerGate() = default;
};

// For KV that lies where compute reads it and goes nowhere: tells nothing, waits for nothing. Compute thread.
class ResidentGate final : public LayerGate {
 public:
  void after_append(uint16_t) override {}
  [[nodiscard]] bool before_attention(uint16_t) override { return true; }
};

}  // namespace spillway
