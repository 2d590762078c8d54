#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "common/unique_fd.h"

namespace spillway {

// kFollowed: for files that an operator names, which certificate tools and secret mounts keep behind links. kRefused:
// for one that this program makes where it is absent.
enum class Links : uint8_t { kFollowed, kRefused };
// Opens a file of secrets for reading; nothing where it is absent. Throws SetupError where it cannot be opened or
// others than its owner may read or write it: of a link, what it leads to. `what`: the file's purpose, for the error.
std::optional<UniqueFd> open_private_file(const std::string& path, std::string_view what, Links links);

inline constexpr size_t kSmallFileBytesMax = 64 << 10;

// All of it. Throws SetupError where it cannot be read or is larger than `bytes_max`. `path` and `what`: for the error.
std::string read_small_file(const UniqueFd& file, const std::string& path, std::string_view what,
                            size_t bytes_max = kSmallFileBytesMax);

}  // namespace spillway
