#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/numerics.h"

namespace spillway {

// What this machine can do at most, measured: the yardstick that benches print beside their own figures.
struct MachinePeak {
  double bf16_flops_per_s = 0;  // vdpbf16ps from registers; 0 where the machine has no such instruction
  double int8_ops_per_s = 0;    // vpdpbusd, likewise; a product and a sum are two operations, as of floats
  double f32_flops_per_s = 0;   // multiply-adds at the widest vectors known of the machine (machine_loops.h)
  double read_bytes_per_s = 0;  // measure_read_bandwidth of more than the last cache holds

  // What products of such activations are set against: f32 where the machine cannot multiply these.
  double multiply_add_per_s(Activations activations) const {
    const double narrow = activations == Activations::kInt8 ? int8_ops_per_s : bf16_flops_per_s;
    return narrow > 0 ? narrow : f32_flops_per_s;
  }
};

// With `threads` at once; best of a few runs, about a second in all. Throws SetupError when memory for the reads is
// lacking.
MachinePeak measure_machine_peak(uint32_t threads);

// Bytes per second of `threads` that read `bytes` in order, each its share, again and again: as decode reads weights.
// Caches count where the bytes fit in them. Best of a few runs. Throws SetupError when so much memory is lacking.
double measure_read_bandwidth(uint32_t threads, size_t bytes);

}  // namespace spillway
