#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "common/result.h"
#include "formats/gguf.h"
#include "kernels/rope_table.h"
#include "kv/block.h"
#include "model/architecture.h"

namespace spillway {

// The shape of one Llama-family decoder. A value.
struct ModelConfig {
  Architecture architecture = kLlama;
  uint16_t layer_count = 0, heads = 0, kv_heads = 0, head_dim = 0;
  uint32_t hidden = 0, feed_forward = 0, vocab = 0;
  uint32_t context_max = 0;     // positions that can be served
  uint32_t sliding_window = 0;  // not 0: the model was trained for more positions, but sees no further back than this,
                                // so context_max ends where full attention would begin to differ
  float rms_epsilon = 0;
  RopeSettings rope;
  uint32_t qkv_features() const { return (uint32_t{heads} + 2u * kv_heads) * head_dim; }
  uint32_t attention_features() const { return uint32_t{heads} * head_dim; }
  KvLayout kv_layout(KvDtype dtype = KvDtype::kBf16) const;
};

// From the metadata of its architecture (`llama.*`, `qwen2.*`, ...) and the RoPE factors' tensor; bounds every number
// (kUnsupported names the key and what is supported, kCorrupt a key that contradicts another). Any thread.
Result<ModelConfig> read_model_config(const GgufFile& file);

using FileDigest = std::array<std::byte, 32>;  // SHA-256
// Reads the whole file once, and leaves none of it in this process's memory.
FileDigest digest_of(const GgufFile& file);

// SHA-256 over the file's digest, the config and block_tokens; first 128 bits.
ModelId compute_model_id(const FileDigest& file, const ModelConfig& config, uint16_t block_tokens);

}  // namespace spillway
