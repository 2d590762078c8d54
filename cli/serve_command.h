#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway serve`: one gateway, N prefill and M decode nodes as child processes of a supervisor. Blocks until SIGTERM
// or SIGINT; returns the exit code.
int serve_command(const Options& options);

}  // namespace spillway
