#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway decode`: one decode node until SIGTERM. Composition root: builds and wires, decides nothing.
int start_decode(const Options& options);

}  // namespace spillway
