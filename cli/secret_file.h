#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace spillway {

using Secret = std::array<std::byte, 32>;

// Reads the secret that keys the prefix cache, or makes it (32 random bytes, mode 0600, written to a temporary name and
// linked into place, so that two first starts agree). `path` empty: spillway/secret in the user's state folder. Throws
// SetupError when the file is readable by others, has another size, or cannot be made.
Secret read_or_make_secret(std::string path);

// Throws SetupError when read_or_make_secret would, as far as can be told without making anything.
void check_secret(std::string path);

// What killed first starts left beside it; the next start removes that.
std::vector<std::string> secret_leftovers(std::string path);

}  // namespace spillway
