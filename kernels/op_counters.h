#pragma once

#include <cstdint>

namespace spillway {

// What the operations really did since reset, counted inside them from the shapes they were given; every call adds.
// Bytes are what a call must read at least once, not cache traffic; embed and rms_norm count nothing.
struct OpCounters {
  uint64_t q_rows = 0, kv_rows = 0;  // rope_append: rows rotated, rows appended (so: rows x layers)
  uint64_t mlp_rows = 0;             // gemm with kSwiGlu: rows (so: rows x layers)
  uint64_t logit_rows = 0;           // sample: rows
  uint64_t gemm_flops = 0;           // gemm: 2 * M * N * K of the logical shape, without padding
  uint64_t attention_flops = 0;      // attention: 4 * head_dim per (row, query head, key position <= the row's)
  uint64_t weight_bytes = 0;         // gemm: Weight::bytes, whatever M
  uint64_t kv_bytes = 0;  // attention: per span, K and V (bf16, all kv heads) of positions up to its last row's
};

}  // namespace spillway
