#pragma once

#include <string>
#include <vector>

namespace spillway {

// The keys of --api-key-file: one a line of printable ASCII without spaces; empty lines and those that begin with # do
// not count. 1 to kApiKeysMax of at most kApiKeyBytesMax bytes. Throws SetupError, which names lines and never a key,
// where it is otherwise, absent, or open to others than its owner.
std::vector<std::string> read_api_keys(const std::string& path);

}  // namespace spillway
