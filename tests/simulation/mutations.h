#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "simulator/interceptor.h"

namespace spillway {

// One way to break the protocol, put between the parts of a World. Each stands for a plausible mistake in a node; the
// simulation must notice it.
struct Mutation {
  std::string_view name;
  std::unique_ptr<Interceptor> (*make)();
};
std::span<const Mutation> mutations();

}  // namespace spillway
