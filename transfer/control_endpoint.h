#pragma once

#include <string>
#include <string_view>

#include "common/result.h"

namespace spillway {

// The endpoint as ZeroMQ takes it, of `ipc://PATH`, `tcp://127.x.x.x:PORT`, `tcp://[::1]:PORT` or
// `tcp://localhost:PORT`. Anything else is kInvalidArgument, by name: another address, a wildcard or a host name would
// let other machines in, and peers have no keys yet. Pure; nothing is looked up.
Result<std::string> local_control_endpoint(std::string_view endpoint);

}  // namespace spillway
