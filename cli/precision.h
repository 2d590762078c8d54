#pragma once

#include "cli/options.h"
#include "kernels/numerics.h"

namespace spillway {

// What --kv-dtype says; its flag takes these names alone.
inline Precision precision_of(const Options& options) {
  return {.kv = options.kv_dtype == kv_dtype_name(KvDtype::kInt8) ? KvDtype::kInt8 : KvDtype::kBf16};
}

}  // namespace spillway
