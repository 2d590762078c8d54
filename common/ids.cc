#include "common/ids.h"

#include <fmt/format.h>

namespace spillway {

std::string id_text(const RequestId& id) {
  return fmt::format("{:016x}{:x}", static_cast<uint64_t>(id.boot), id.counter);
}

}  // namespace spillway
