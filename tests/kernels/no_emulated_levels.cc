#include "tests/kernels/emulated_levels.h"

namespace spillway::cpu {

std::span<const IsaLevel> emulated_levels() { return {}; }

}  // namespace spillway::cpu
