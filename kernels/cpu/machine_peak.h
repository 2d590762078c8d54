#pragma once

#include <cstdint>

namespace spillway {

// What this machine can do at most, measured: the yardstick that benches print beside their own figures.
struct MachinePeak {
  double bf16_flops_per_s = 0;  // vdpbf16ps from registers; 0 where the machine has no such instruction
  double f32_flops_per_s = 0;   // fused multiply-add at the widest vectors of the machine, from registers
  double read_bytes_per_s = 0;  // 256 MiB read in order, as weights are
};

// With `threads` at once; best of a few runs, about half a second in all. Throws SetupError when memory for the reads
// is lacking.
MachinePeak measure_machine_peak(uint32_t threads);

}  // namespace spillway
