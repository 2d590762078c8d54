#pragma once

#include <cstdint>
#include <string>

#include "cli/options.h"
#include "transfer/messages.h"

namespace spillway {

// Throws SetupError when this machine cannot pass KV through sealed shared memory.
void check_shared_memory();

// Compute threads of each node of a role that serve starts, where they are given; 0: measured by each at its start.
uint32_t threads_fixed(const Options& options, Role role);
// The same, or where they are not given the most that may be chosen: the cores shared by the nodes of the role.
uint32_t threads_per_node(const Options& options, Role role);

// Throws SetupError when nothing can listen on --host and --port, with the remedy. Listens nowhere.
void check_address(const Options& options);

// Throws SetupError when other machines can reach --host and keys or TLS are lacking, unless --insecure allows it; or
// when it is empty. Early words: HttpServer judges the address that it has bound.
void check_exposure(const Options& options);

// Throws SetupError when the nearest folder above `path` that exists cannot be written, so that `path` cannot be made.
void check_can_make(const std::string& path);

// What the API calls the model where --served-model-name names nothing: the file's stem. Throws SetupError where that
// is no UTF-8, which no client could say.
std::string model_name_of_file(const Options& options);

// What `serve` finds out before it starts anything, and `doctor` without starting: the model can be read, its tokeniser
// too, and the memory of all nodes is there. Prints the memory plan on stderr; throws SetupError.
void check_served_model(const Options& options);

}  // namespace spillway
