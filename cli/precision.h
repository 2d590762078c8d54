#pragma once

#include "cli/options.h"
#include "kernels/numerics.h"

namespace spillway {

// What --activations and --kv-dtype say; both take bf16 and int8 alone.
inline Precision precision_of(const Options& options) {
  return {.activations = options.activations == "int8" ? Activations::kInt8 : Activations::kBf16,
          .kv = options.kv_dtype == "int8" ? KvDtype::kInt8 : KvDtype::kBf16};
}

}  // namespace spillway
