#pragma once

#include <cstdint>

#include "formats/gguf.h"
#include "kernels/rope_table.h"
#include "model/metadata_reader.h"

namespace spillway {

inline constexpr const char* kRopeFactorsTensor = "rope_freqs.weight";

// A model's RoPE as its file has it: freq_base; scaling "none", or "linear" by a factor; attn_factor; and the tensor
// kRopeFactorsTensor, f32 [head_dim / 2] (as Llama 3.1's converter leaves its scaling). Other scaling is refused by
// name. The error is left in `reader`. REQUIRES head_dim even.
RopeSettings read_rope(const GgufFile& file, MetadataReader& reader, uint32_t head_dim);

}  // namespace spillway
