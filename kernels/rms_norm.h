#pragma once

#include "kernels/tensor.h"

namespace spillway {

// out[r] = bf16(x[r] * rsqrt(mean(x[r]^2) + epsilon) * weight) (Zhang & Sennrich 2019). The sum of squares is in f32 in
// one fixed order per row, whatever the row count.
struct RmsNormArgs {
  TensorView x;       // f32 [rows, hidden]
  TensorView weight;  // f32 [hidden]
  float epsilon = 0;
  TensorView out;  // bf16 [rows, hidden]
};

}  // namespace spillway
