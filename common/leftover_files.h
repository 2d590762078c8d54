#pragma once

#include <string>
#include <vector>

namespace spillway {

// Files that were to become `path` and never did, because their writer was killed: `path` and a suffix as mkstemp()
// gives it (".XXXXXX"), plain, of this user, and locked (flock) by nobody. A writer locks its file as long as it lives,
// and looks after that whether it is still there (st_nlink).
std::vector<std::string> leftover_files(const std::string& path);
void remove_leftover_files(const std::string& path);

}  // namespace spillway
