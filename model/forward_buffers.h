#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "model/model_config.h"

namespace spillway {

// How large one forward pass may be.
struct ForwardLimits {
  uint32_t rows_max = 0;        // tokens of one batch
  uint32_t logit_rows_max = 0;  // of those, how many may reach the classifier
  uint32_t positions_max = 0;   // RoPE angles are tabulated for positions below this
};

// The buffers of one forward pass, reused by every layer. One piece of a Backend's memory, laid out once; never owns.
struct ForwardBuffers {
  TensorView residual;      // f32 [rows_max, hidden]
  TensorView normed;        // bf16 [rows_max, hidden]: input of the QKV and gate-up products
  TensorView qkv;           // f32 [rows_max, qkv_features]
  TensorView q;             // bf16 [rows_max, heads, head_dim]
  TensorView attended;      // bf16 [rows_max, heads, head_dim]
  TensorView mlp;           // bf16 [rows_max, feed_forward]
  TensorView final_normed;  // bf16 [logit_rows_max, hidden]
  TensorView logits;        // f32 [logit_rows_max, vocab]
  TensorView rope_table;    // f32 [positions_max, head_dim]: cos, sin per pair, angles in f64 rounded once
  size_t bytes = 0;

  // Views over `base`, which has room for `bytes`; with nullptr only `bytes` is of use. Touches no memory.
  ForwardBuffers(std::byte* base, const ModelConfig& config, const ForwardLimits& limits);
  static ForwardBuffers allocate(Backend& backend, const ModelConfig& config, const ForwardLimits& limits);
};

// Rows [first, first + count) of `view`, whose leading dimension is rows. REQUIRES: within the view.
TensorView row_range(const TensorView& view, uint32_t first, uint32_t count);

}  // namespace spillway
