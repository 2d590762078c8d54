#pragma once

#include <string>
#include <string_view>

namespace spillway {

// Why a server whose address other machines reach must not start with these, and the remedies; empty: it may. `host`:
// as the operator named it.
std::string exposure_fault(std::string_view host, bool keys, bool tls);

inline constexpr std::string_view kEmptyHost =
    "--host is empty, which would mean every address of this machine: name one, such as 127.0.0.1";

}  // namespace spillway
