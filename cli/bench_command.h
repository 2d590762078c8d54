#pragma once

#include "cli/options.h"

namespace spillway {

// `spillway bench engine`: the cases of bench_cases() beside the machine's multiply-add peak and read bandwidth,
// measured in the same run. Returns the exit code; throws SetupError.
int bench_command(const Options& options);

}  // namespace spillway
