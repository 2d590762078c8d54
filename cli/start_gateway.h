#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway gateway`: HTTP API, queue and placement until SIGTERM. Composition root: builds and wires, decides nothing.
int start_gateway(const Options& options);

}  // namespace spillway
