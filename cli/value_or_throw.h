#pragma once

#include <utility>

#include "common/check.h"
#include "common/result.h"

namespace spillway {

// The value, or the error as SetupError: for what a command cannot start without.
template <class T>
T value_or_throw(Result<T> result) {
  if (!result) throw SetupError(result.error().detail);
  return std::move(*result);
}

}  // namespace spillway
