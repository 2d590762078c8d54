#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "common/result.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "kv/block.h"
#include "model/model_config.h"

namespace spillway {

// One model's weights, packed by a Backend; they live as long as the backend and the file. Immutable.
struct LayerWeights {
  TensorView attention_norm, mlp_norm;  // f32 [hidden]
  Weight qkv;                           // [(heads + 2 kv_heads) * head_dim, hidden]: q, k, v rows one after the other
  Weight attention_out;                 // [hidden, heads * head_dim]
  Weight gate_up;                       // [2 * feed_forward, hidden], PackOrder::kGateUp
  Weight down;                          // [hidden, feed_forward]
};
struct Weights {
  FileTensor embedding;                         // [vocab, hidden], as stored
  std::vector<LayerWeights> layers;             // layer_count of them
  TensorView final_norm;                        // f32 [hidden]
  Weight classifier;                            // [vocab, hidden]; the embedding again where tied
  std::vector<const Weight*> matrices() const;  // all, in the order in which load_weights() asks for them
  size_t packed_bytes() const;                  // of all of them: what one pass over the model reads
};

// GGUF names and order of "llama": Q and K rows already stand in interleaved RoPE pairs, so nothing is permuted.
// kCorrupt / kUnsupported name the tensor with the shape found and expected; a tensor that this forward pass would not
// use (a bias, an expert, RoPE factors) is kUnsupported, because ignoring it would change the model. Throws SetupError
// when the backend cannot pack a shape or has no memory. With `packed`, the matrices of the same model as
// PackedWeights::write() laid them out, nothing is packed: they are used where they lie; kCorrupt when they are not as
// many bytes as these tensors need.
Result<Weights> load_weights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                             std::span<const std::byte> packed = {});
// Where the next matrix begins in PackedWeights.
constexpr size_t page_aligned(size_t bytes) { return (bytes + kPageBytes - 1) / kPageBytes * kPageBytes; }

}  // namespace spillway
