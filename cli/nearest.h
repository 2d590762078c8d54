#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace spillway {

// "; did you mean X?" with the name that takes the fewest edits (optimal string alignment: insert, delete, replace,
// swap neighbours; Boytsov, ACM JEA 16, 2011) from `typed`, "" where none takes at most a third of its letters.
std::string did_you_mean(std::string_view typed, const std::vector<std::string>& names);

}  // namespace spillway
