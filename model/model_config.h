#pragma once

#include <cstdint>

#include "common/result.h"
#include "formats/gguf.h"
#include "kv/block.h"

namespace spillway {

// The shape of one Llama-family decoder. A value.
struct ModelConfig {
  uint16_t layer_count = 0, heads = 0, kv_heads = 0, head_dim = 0;
  uint32_t hidden = 0, feed_forward = 0, vocab = 0;
  uint32_t context_max = 0;  // positions the model was trained for
  float rms_epsilon = 0;
  double rope_theta = 0;
  uint32_t qkv_features() const { return (uint32_t{heads} + 2u * kv_heads) * head_dim; }
  uint32_t attention_features() const { return uint32_t{heads} * head_dim; }
  KvLayout kv_layout(uint16_t block_tokens = 64) const;
};

// From `llama.*` metadata; bounds every number (kUnsupported names the key and what is supported, kCorrupt a key that
// contradicts another). Any thread.
Result<ModelConfig> read_model_config(const GgufFile& file);

// SHA-256 over the file's bytes, the config and block_tokens; first 128 bits. Reads the whole file once.
ModelId compute_model_id(const GgufFile& file, const ModelConfig& config, uint16_t block_tokens);

}  // namespace spillway
