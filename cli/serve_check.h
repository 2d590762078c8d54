#pragma once

#include <cstdint>
#include <string>

#include "cli/options.h"

namespace spillway {

// Throws SetupError when this machine cannot pass KV through sealed shared memory.
void check_shared_memory();

// Compute threads of each node that serve starts: --threads, or the cores shared by the nodes of a role.
uint32_t threads_per_node(const Options& options);

// Throws SetupError when nothing can listen on --host and --port, with the remedy. Listens nowhere.
void check_address(const Options& options);

// Throws SetupError when other machines can reach --host and keys or TLS are lacking, unless --insecure allows it.
void check_exposure(const Options& options);

// Throws SetupError when the nearest folder above `path` that exists cannot be written, so that `path` cannot be made.
void check_can_make(const std::string& path);

// What `serve` finds out before it starts anything, and `doctor` without starting: the model can be read, its tokeniser
// too, and the memory of all nodes is there. Prints the memory plan on stderr; throws SetupError.
void check_served_model(const Options& options);

}  // namespace spillway
