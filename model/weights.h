#pragma once

#include <cstddef>
#include <span>
#include <string_view>
#include <vector>

#include "common/result.h"
#include "formats/gguf.h"
#include "kernels/backend.h"
#include "kernels/tensor.h"
#include "model/model_config.h"

namespace spillway {

// One model's weights, packed by a Backend; they live as long as the backend and the file. Immutable.
struct LayerWeights {
  TensorView attention_norm, mlp_norm;  // f32 [hidden]
  Weight qkv;                           // [(heads + 2 kv_heads) * head_dim, hidden]: q, k, v rows one after the other
  TensorView qkv_bias;                  // f32 [rows of qkv], in their order; no data: the architecture has none
  TensorView q_norm, k_norm;            // f32 [head_dim], in the order of a head's rows; no data likewise
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

// A matrix that was packed ahead of time: the name of its first tensor, and what Backend::pack() made of it.
struct PackedMatrix {
  std::string_view name;
  std::span<const std::byte> bytes;
};

// By the names that all architectures share in GGUF. Q and K, their biases and their norms come out in interleaved RoPE
// pairs, whatever the file's order is (RopeOrder), so that everything after this knows one order.
// kCorrupt / kUnsupported name the tensor with the shape found and expected; a tensor that this forward pass would not
// use (another bias, an expert) is kUnsupported, because ignoring it would change the model. Throws SetupError
// when the backend cannot pack a shape or has no memory. With `packed`, all matrices of the same model in
// the order of pack_jobs(), nothing is packed: they are used where they lie; kCorrupt when they are not those that
// these tensors need, by name and size.
Result<Weights> load_weights(const GgufFile& file, const ModelConfig& config, Backend& backend,
                             std::span<const PackedMatrix> packed = {});

// What load_weights() has packed, in its order, for whoever packs ahead of time; errors as there.
struct PackJob {
  std::vector<FileTensor> tensors;
  PackOrder order = PackOrder::kRows;
};
Result<std::vector<PackJob>> pack_jobs(const GgufFile& file, const ModelConfig& config, Backend& backend);

}  // namespace spillway
