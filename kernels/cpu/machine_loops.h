#pragma once

#include <cstdint>

// Multiply-adds from registers as fast as a processor can do them, for measure_machine_peak: machine_loops_x86.cc,
// machine_loops_arm.cc.
namespace spillway::cpu {

struct MachineLoop {
  double step_operations = 0;              // products and sums of one step
  float (*run)(uint32_t steps) = nullptr;  // null where this machine has no such instruction
};

struct MachineLoops {
  MachineLoop bf16, int8, f32;  // f32 is always there
};

MachineLoops machine_loops();

}  // namespace spillway::cpu
