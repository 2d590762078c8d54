#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/unique_fd.h"

namespace spillway {

// Opens a file of secrets for reading; nothing where it is absent. Throws SetupError where it cannot be opened or
// others than its owner may read or write it. `what`: the file's purpose, for the error.
std::optional<UniqueFd> open_private_file(const std::string& path, std::string_view what);

// All of it. Throws SetupError where it cannot be read or is larger than 64 KiB. `path` and `what`: for the error.
std::string read_small_file(const UniqueFd& file, const std::string& path, std::string_view what);

}  // namespace spillway
