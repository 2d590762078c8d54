#pragma once

#include "cli/options.h"
#include "gateway/http_server.h"

namespace spillway {

// `spillway gateway`: HTTP API, queue and placement until SIGTERM. Composition root: builds and wires, decides nothing.
int start_gateway(const Options& options);

// Of --host, --port and --queue-max.
HttpConfig http_config_of(const Options& options);

}  // namespace spillway
