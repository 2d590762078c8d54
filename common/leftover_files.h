#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace spillway {

// What a file is called until it is whole, behind its name; mkstemp() fills in the end.
inline constexpr std::string_view kUnfinishedSuffix = ".spillway-new.XXXXXX";

// Files that were to become `path` and never did, because their writer was killed: `path` and kUnfinishedSuffix as
// mkstemp() fills it, plain, of this user, and locked (flock) by nobody. A writer locks its file as long as it lives,
// and looks after that whether it is still there (st_nlink).
std::vector<std::string> leftover_files(const std::string& path);
void remove_leftover_files(const std::string& path);
// Those that this process itself is writing now, whatever they were to become: before it leaves without finishing them.
void remove_own_unfinished_files();

}  // namespace spillway
