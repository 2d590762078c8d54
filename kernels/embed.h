#pragma once

#include <span>

#include "common/ids.h"
#include "kernels/tensor.h"

namespace spillway {

// out[t] = table[tokens[t]], decoded exactly to f32. REQUIRES every token < table.rows.
struct EmbedArgs {
  std::span<const TokenId> tokens;
  const FileTensor* table = nullptr;  // [vocab, hidden], as stored
  TensorView out;                     // f32 [tokens, hidden]
};

}  // namespace spillway
