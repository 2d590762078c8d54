#pragma once

#include "kernels/tensor.h"

namespace spillway {

enum class Epilogue : uint8_t {
  kNone,         // out f32 [M, N] = product
  kAddResidual,  // out f32 [M, N] += product
  kSwiGlu,       // weight packed with PackOrder::kGateUp; out bf16 [M, N/2] = bf16(silu(gate) * up) (Shazeer 2020)
};

// product[m, n] = sum_k a[m, k] * weight[n, k]: `a` in bf16, weights as docs/numerics.md says, sums in f32. One K order
// per output element within an ISA level, whatever M, the rows around it or the thread count: never a split of K.
struct GemmArgs {
  TensorView a;  // bf16 [M, K]
  const Weight* weight = nullptr;
  Epilogue epilogue = Epilogue::kNone;
  TensorView out;  // see Epilogue
};

}  // namespace spillway
