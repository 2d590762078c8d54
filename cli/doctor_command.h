#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway doctor`: what this machine has (cores, instruction sets, memory, shared memory, file limits), what of it is
// used, and what would be missing. With a model: the memory its settings imply. Exit code 0 when nothing
// that serving needs was found missing; `serve` itself accepts a low file limit.
int doctor_command(const Options& options);

}  // namespace spillway
