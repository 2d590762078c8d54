#pragma once

#include <string>
#include <string_view>

namespace spillway {

// `text` from a file as it may appear in an error: quoted, escaped, cut after 64 bytes.
std::string quote_foreign(std::string_view text);

}  // namespace spillway
