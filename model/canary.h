#pragma once

#include <cstdint>

#include "kernels/backend.h"
#include "kv/block.h"
#include "model/decoder.h"

namespace spillway {

inline constexpr uint32_t kCanaryTokens = 16;

// What this process's arithmetic makes of a fixed prompt: XXH3-64 of its last f32 logits, seeding XXH3-64 of the RoPE
// table (up to 8,192 positions), the one value that depends on the machine's libm. Two processes with the same model
// and numerics class that differ here would break placement invariance, so they do not pair (ControlChannel).
// Writes the first slots of `kv`. Compute thread, or before there is one. REQUIRES: `decoder` takes kCanaryTokens
// positions, `kv` has slots for them.
uint64_t compute_canary(Backend& backend, Decoder& decoder, const SlotArena& kv);

}  // namespace spillway
