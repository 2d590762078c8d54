#pragma once

#include "cli/options.h"

namespace spillway {

// Throws SetupError when this machine cannot pass KV through sealed shared memory.
void check_shared_memory();

// What `serve` finds out before it starts anything, and `doctor` without starting: the model can be read, its tokeniser
// too, and the memory of all nodes is there. Prints the memory plan on stderr; throws SetupError.
void check_served_model(const Options& options);

}  // namespace spillway
