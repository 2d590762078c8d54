#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway run`: answers one prompt in this process; the text streams to stdout, what it took goes to stderr. Returns
// the exit code; throws SetupError when the model or the prompt cannot be used.
int run_command(const Options& options);

}  // namespace spillway
