#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "gateway/api_keys.h"

namespace spillway {

// The keys of --api-key-file: one a line of printable ASCII without spaces; empty lines and those that begin with # do
// not count. 1 to kApiKeysMax of kApiKeyBytesMin to kApiKeyBytesMax bytes. Throws SetupError, which names lines and
// never a key, where it is otherwise, absent, or open to others than its owner.
std::vector<std::string> read_api_keys(const std::string& path);
// The same, and nothing of them is left in memory.
void check_api_keys(const std::string& path);
ApiKeys read_hashed_api_keys(const std::string& path, std::span<const std::byte> secret);

}  // namespace spillway
