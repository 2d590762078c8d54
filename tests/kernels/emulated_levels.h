#pragma once

#include <span>

#include "kernels/cpu/isa_level.h"

namespace spillway::cpu {

// Levels whose attention is compiled for any machine, beside those that this one can run; their products are the scalar
// level's. Empty where nothing can be emulated: emulated_levels.cc, no_emulated_levels.cc.
std::span<const IsaLevel> emulated_levels();

}  // namespace spillway::cpu
