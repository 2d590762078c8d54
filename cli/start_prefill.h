#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway prefill`: one prefill node until SIGTERM. Composition root: builds and wires, decides nothing.
int start_prefill(const Options& options);

}  // namespace spillway
