#pragma once

#include <string>
#include <vector>

#include "cli/options.h"
#include "common/ids.h"
#include "gateway/served_model.h"

namespace spillway {

inline constexpr size_t kPublicPrefixFileBytesMax = 1 << 20;

// The prefixes of --public-prefix-file as tokens: one JSON object a line, as parse_public_prefix takes it; empty lines
// and those that begin with # do not count. 1 to kPublicPrefixesMax. Throws SetupError, which names the line, where it
// is otherwise.
std::vector<std::vector<TokenId>> read_public_prefixes(const std::string& path, const ServedModel& model);

// Where a file is given, reads it as the gateway will, with the tokens of --model: how many prefixes it has, otherwise
// 0. Throws SetupError as above.
size_t check_public_prefixes(const Options& options);

}  // namespace spillway
