#pragma once

#include <string>
#include <string_view>

#include "common/result.h"

namespace spillway {

// The text of a Jinja string literal, from what stands between its quotes: escapes as in Python (an unknown one stays
// as it is written). kUnsupported: \N{...}, and a backslash before a character beyond ASCII. kInvalidArgument: a
// malformed or surrogate \x, \u or \U. REQUIRES: valid UTF-8.
Result<std::string> resolve_escapes(std::string_view written);

}  // namespace spillway
