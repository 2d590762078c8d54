#include "common/version.h"

namespace spillway {

std::string_view version() { return SPILLWAY_VERSION; }

}  // namespace spillway
