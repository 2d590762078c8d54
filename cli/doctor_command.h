#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway doctor`: what this machine has (cores, instruction sets, memory, shared memory, open files, the address)
// and what `serve` with the same flags or --config would use of it. With a model: the memory its settings imply. Starts
// nothing. Exit code 0 when nothing that serving needs was found missing.
int doctor_command(const Options& options);

}  // namespace spillway
