#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway doctor`: what this machine has (cores, instruction sets, memory, shared memory, file limits), what of it is
// used, and what would be missing. With a model: the memory its settings imply. Exit code 0 when `serve` would start.
int doctor_command(const Options& options);

}  // namespace spillway
